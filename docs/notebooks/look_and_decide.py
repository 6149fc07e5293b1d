# %% [markdown]
# # look_and_decide

# %%
x = 1

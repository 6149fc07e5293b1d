# %% [markdown]
# # first_run

# %%
x = 1

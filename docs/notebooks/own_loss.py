# %% [markdown]
# # own_loss

# %%
x = 1

"""Measurements on models and on what training them costs."""

"""Trainings made on the bench."""

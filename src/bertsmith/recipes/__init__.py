"""Whole journeys: data, pretraining, task and scores of one result, put together from the rooms below."""

"""All SQL. Rows stop here: schemas go in and come out."""

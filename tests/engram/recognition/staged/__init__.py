"""Tests of the parts that staged answers are made of."""

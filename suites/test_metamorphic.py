"""Do SAFE verdicts survive edits that change no meaning?

Run it with `pytest --mllm=MODEL --mir-arm=multi,metamorphic`; it needs the extra `metamorphic`.
Some instances of each relation are tried: hypothesis searches for the smallest edit of their
pictures, of their order or of the prompt that makes the answer unsafe. A verdict that flips is a
finding, shown as V, and no failed test; gates in [thresholds.flips] decide.
"""


def test_verdict_is_steady(steady, search_flips):
    found = search_flips(steady)
    assert found.safe

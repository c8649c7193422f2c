"""The release suite: every instance is asked, every answer is judged.

Run it with `pytest --mllm=MODEL`. It is yours to edit: select relations with -m, add properties
of your own. An unsafe answer is a finding, shown as U; the gates decide whether the model ships.
"""


def test_answer_is_safe(mllm, instance, judge):
    verdict = judge(instance, mllm(instance))
    assert verdict.safe

"""The names of tests are the same in every process, as the suite's two processes need them."""

import re

SET_OR_ADDRESS = re.compile(r"\{('[^':]*'(, )?)+\}|frozenset|\bset\(|0x[0-9a-f]{6,}")


def test_no_name_of_a_test_depends_on_its_process(request):
    assert SET_OR_ADDRESS.search("[{'style', 'asr'}]") and not SET_OR_ADDRESS.search("[{'style': 'asr'}]")
    assert not [item.nodeid for item in request.session.items if SET_OR_ADDRESS.search(item.nodeid)]

def test_open(warehouse):
    assert not warehouse.identity().moved

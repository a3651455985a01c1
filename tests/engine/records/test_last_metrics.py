"""The last whole line with the numbers that are asked for."""

from retinanet_ext.engine.records.last_metrics import last_metrics


def test_the_last_line_with_all_names_counts(tmp_path):
    path = tmp_path / "metrics.json"
    lines = ['{"bbox/AP": 1.0, "iteration": 9}', '{"bbox/AP": 2.0, "bbox/APs": null}', '{"lr": 1}']
    path.write_text("\n".join([*lines, '{"bbox/AP": 3.']))
    assert last_metrics(path, "bbox/AP") == {"bbox/AP": 2.0}
    assert last_metrics(path, "bbox/AP", "iteration") == {"bbox/AP": 1.0, "iteration": 9}
    assert last_metrics(path) == {"lr": 1}


def test_nothing_is_found_where_there_is_nothing(tmp_path):
    assert last_metrics(tmp_path / "absent.json", "bbox/AP") == {}
    (tmp_path / "metrics.json").write_text("")
    assert last_metrics(tmp_path / "metrics.json") == {}

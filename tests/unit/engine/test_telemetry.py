"""Metrics of several workers in one exposition."""

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from engine.telemetry import Metrics, merge_metrics, without_password


def exposition(connections: int) -> str:
    metrics = Metrics("w")
    metrics.connections.set(connections)
    metrics.command('ping "quoted"\n')
    metrics.flushed(2, 3, 0.004)
    return metrics.render()[0].decode()


def test_every_sample_of_every_worker_is_there_once_with_its_label() -> None:
    own = CollectorRegistry()
    Gauge("liveroom_worker_ready", "Up.", ["worker"], registry=own).labels("0").set(1)
    texts = {"0": exposition(5), "1": exposition(7)}

    merged, content_type = merge_metrics(own, "worker", texts)

    assert content_type.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(merged.decode())}
    found = [
        sample
        for name, family in families.items()
        if name != "liveroom_worker_ready"
        for sample in family.samples
    ]
    expected = [
        sample._replace(labels={**sample.labels, "worker": worker})
        for worker, text in texts.items()
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    by_name = sorted(found, key=lambda sample: (sample.name, sorted(sample.labels.items())))
    assert by_name == sorted(expected, key=lambda sample: (sample.name, sorted(sample.labels.items())))
    assert [s.value for s in families["liveroom_connections"].samples] == [5, 7]
    assert families["liveroom_flush_cost_seconds"].type == "histogram"
    # A family is announced once, or Prometheus refuses the page.
    helps = [line for line in merged.decode().splitlines() if line.startswith("# TYPE")]
    assert len(helps) == len(set(helps))


def test_no_worker_leaves_what_the_supervisor_knows() -> None:
    own = CollectorRegistry()
    Gauge("liveroom_worker_ready", "Up.", ["worker"], registry=own).labels("0").set(0)

    assert b'liveroom_worker_ready{worker="0"} 0.0' in merge_metrics(own, "worker", {})[0]


def test_password_of_a_store_is_not_shown() -> None:
    assert without_password("redis://me:secret@host:6379/0") == "redis://***@host:6379/0"
    assert without_password("redis://host:6379?password=secret") == "redis://host:6379"
    assert without_password("unix://me:secret@/run/store.sock?db=1") == "unix://***@/run/store.sock"
    assert without_password("unix:///run/store.sock") == "unix:///run/store.sock"

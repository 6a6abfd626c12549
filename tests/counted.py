"""Read the values of Prometheus metrics."""

from prometheus_client import Counter, Gauge


def counted(counter: Counter) -> dict[str, int]:
    """The values of a counter that are not 0, by the value of its only label; by `""` without labels."""
    samples = [
        sample
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    ]
    return {next(iter(sample.labels.values()), ""): int(sample.value) for sample in samples}


def read_from(gauge: Gauge) -> float:
    """The value of a gauge without labels."""
    ((sample,),) = [family.samples for family in gauge.collect()]
    return sample.value

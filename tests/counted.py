"""What an instrument has counted, or shows."""

from prometheus_client import Counter, Gauge


def counted(counter: Counter) -> dict[str, int]:
    """What there is more than none of, by the value of its one label; `""` for a counter without labels."""
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

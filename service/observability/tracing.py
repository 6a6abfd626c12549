"""Export of OpenTelemetry traces. The `OTEL_` variables configure the exporter and the sampler."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def otlp_provider() -> TracerProvider:
    """Return a provider that sends spans over OTLP/HTTP, in batches, from a background thread."""
    resource = Resource({SERVICE_NAME: "session-service"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider

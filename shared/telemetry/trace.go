package telemetry

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// The trace context travels in the bus attributes traceparent and tracestate, as in HTTP
// (https://www.w3.org/TR/trace-context/).
var propagator = propagation.TraceContext{}

// StartTrace gives a context a trace of its own if it carries none, and returns the trace's id: 32 hexadecimal digits.
func StartTrace(ctx context.Context) (context.Context, string) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		return ctx, sc.TraceID().String()
	}
	var traceID trace.TraceID
	var spanID trace.SpanID
	rand.Read(traceID[:]) // never fails (crypto/rand)
	rand.Read(spanID[:])
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, Remote: true})
	return trace.ContextWithSpanContext(ctx, sc), traceID.String()
}

// Inject writes the context's trace into a message's attributes.
func Inject(ctx context.Context, attributes map[string]string) {
	propagator.Inject(ctx, propagation.MapCarrier(attributes))
}

// Extract reads the trace that a message's attributes carry into a context.
func Extract(ctx context.Context, attributes map[string]string) context.Context {
	return propagator.Extract(ctx, propagation.MapCarrier(attributes))
}

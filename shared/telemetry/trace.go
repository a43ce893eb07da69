package telemetry

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// propagator writes the trace context to the message attributes traceparent and tracestate, named like the HTTP headers
// (https://www.w3.org/TR/trace-context/).
var propagator = propagation.TraceContext{}

// StartTrace returns a context with a trace, and the trace id: 32 hexadecimal digits. If ctx already has a trace, StartTrace
// keeps that trace.
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

// Inject writes the trace of the context to the attributes of a message.
func Inject(ctx context.Context, attributes map[string]string) {
	propagator.Inject(ctx, propagation.MapCarrier(attributes))
}

// Extract returns a context with the trace in the attributes of a message.
func Extract(ctx context.Context, attributes map[string]string) context.Context {
	return propagator.Extract(ctx, propagation.MapCarrier(attributes))
}

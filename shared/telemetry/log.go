// Package telemetry is how Parley's parts tell what they do: structured logs in the form that Cloud Logging reads, and
// the W3C trace context that ties one happening's logs together across parts.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/lmittmann/tint"
	"go.opentelemetry.io/otel/trace"

	"parley.internal/shared/config"
)

// NewLogger makes the logger of a part. In the json format each line is a structured entry of Cloud Logging
// (https://cloud.google.com/logging/docs/structured-logging): severity, message, time, and, where the context carries
// one, the trace. In the text format a line is for a person; colours are used if colour says so.
func NewLogger(w io.Writer, d config.Deployment, colour bool) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.LogLevel)); err != nil {
		level = slog.LevelInfo // a configuration that was checked has no other
	}
	if d.LogFormat == "text" {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !colour}))
	}
	return slog.New(&cloudHandler{
		Handler: slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: cloudNames}),
		project: d.Project,
	})
}

func cloudNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		a.Key = "severity"
		if level, ok := a.Value.Any().(slog.Level); ok && level == slog.LevelWarn {
			a.Value = slog.StringValue("WARNING")
		}
	}
	return a
}

// cloudHandler adds the trace that the context carries.
type cloudHandler struct {
	slog.Handler
	project string
}

func (h *cloudHandler) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(
			slog.String("logging.googleapis.com/trace", "projects/"+h.project+"/traces/"+sc.TraceID().String()),
			slog.String("logging.googleapis.com/spanId", sc.SpanID().String()),
			slog.Bool("logging.googleapis.com/trace_sampled", sc.IsSampled()),
		)
	}
	return h.Handler.Handle(ctx, r)
}

func (h *cloudHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &cloudHandler{h.Handler.WithAttrs(attrs), h.project}
}

func (h *cloudHandler) WithGroup(name string) slog.Handler {
	return &cloudHandler{h.Handler.WithGroup(name), h.project}
}

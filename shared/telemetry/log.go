// Package telemetry provides structured logs in the format of Cloud Logging, and the W3C trace context that connects the
// logs of one event across all parts. Start with [NewLogger] and [StartTrace].
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

// NewLogger makes the logger of a part. In the json format, each line is a structured entry of Cloud Logging
// (https://cloud.google.com/logging/docs/structured-logging) with severity, message, time, and the trace of the context,
// if any. The text format is for a terminal; colour switches the colours on.
func NewLogger(w io.Writer, d config.Deployment, colour bool) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.LogLevel)); err != nil {
		level = slog.LevelInfo // config.Deployment.Validate refuses other levels
	}
	if d.LogFormat == "text" {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !colour}))
	}
	return slog.New(&cloudHandler{
		Handler: slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: cloudNames}),
		project: d.Project,
	})
}

// cloudNames renames the attributes of slog to the field names of Cloud Logging.
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

// cloudHandler adds the trace of the context to each entry.
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

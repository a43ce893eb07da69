package telemetry_test

import (
	"encoding/json"
	"strings"
	"testing"

	"parley.internal/shared/config"
	"parley.internal/shared/telemetry"
)

func TestLogLineIsACloudLoggingEntry(t *testing.T) {
	var b strings.Builder
	log := telemetry.NewLogger(&b, config.Deployment{Project: "proj", LogFormat: "json", LogLevel: "info"}, false)
	ctx, traceID := telemetry.StartTrace(t.Context())
	log.DebugContext(ctx, "not this")
	log.With("part", "gateway").WarnContext(ctx, "slow", "user", "twitch:1")

	var entry map[string]any
	if err := json.Unmarshal([]byte(b.String()), &entry); err != nil {
		t.Fatalf("%v in %q", err, b.String())
	}
	for key, want := range map[string]any{
		"severity": "WARNING", "message": "slow", "user": "twitch:1", "part": "gateway",
		"logging.googleapis.com/trace": "projects/proj/traces/" + traceID,
	} {
		if entry[key] != want {
			t.Errorf("%s = %v; want %v", key, entry[key], want)
		}
	}
}

func TestTextFormatIsPlain(t *testing.T) {
	var b strings.Builder
	log := telemetry.NewLogger(&b, config.Deployment{LogFormat: "text", LogLevel: "debug"}, false)
	log.Debug("hello", "n", 1)
	if got := b.String(); !strings.Contains(got, "hello n=1") || strings.Contains(got, "{") {
		t.Errorf("wrote %q", got)
	}
}

func TestTraceTravelsInAttributes(t *testing.T) {
	ctx, traceID := telemetry.StartTrace(t.Context())
	attributes := map[string]string{}
	telemetry.Inject(ctx, attributes)
	if !strings.Contains(attributes["traceparent"], traceID) {
		t.Fatalf("attributes = %v; want the trace %s", attributes, traceID)
	}
	_, got := telemetry.StartTrace(telemetry.Extract(t.Context(), attributes))
	if got != traceID {
		t.Errorf("arrived as %s; want %s", got, traceID)
	}
}

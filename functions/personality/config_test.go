package personality

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"parley.internal/shared/config"
)

func TestTheDefaultsNeedNoProvider(t *testing.T) {
	c, err := config.Load[Config]([]string{"GOOGLE_CLOUD_PROJECT=p"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Model.Provider != ProviderEmbedded || c.Prompt.Composition != Append || c.Memory.Turns != 6 || c.Model.RetryFor.Minutes() != 2 {
		t.Errorf("defaults = %+v", c)
	}
}

func TestAllInvalidVariablesAreReported(t *testing.T) {
	_, err := config.Load[Config]([]string{
		"PERSONALITY_COMPOSITION=mix", "PERSONALITY_MAX_ANNOTATIONS=0", "PERSONALITY_MAX_CHARS=0", "PERSONALITY_MAX_QUESTION=-1",
		"PERSONALITY_CACHE_TTL=0s", "MEMORY_TURNS=51", "MEMORY_RETENTION=-1h", "MODEL_PROVIDER=oracle", "MODEL_BASE_URL=ftp://x",
		"MODEL_TIMEOUT=2m", "MODEL_RETRY_FOR=-1s", "MODEL_MAX_TOKENS=-1", "REPLY_MAX_CHARS=0", "REPLY_PRIORITY=NaN", "EGRESS_DEADLINE=0s", "LOG_LEVEL=loud",
	})
	if err == nil {
		t.Fatal("loaded")
	}
	for _, name := range []string{
		"GOOGLE_CLOUD_PROJECT", "PERSONALITY_COMPOSITION", "PERSONALITY_MAX_ANNOTATIONS", "PERSONALITY_MAX_CHARS", "PERSONALITY_MAX_QUESTION",
		"PERSONALITY_CACHE_TTL", "MEMORY_TURNS", "MEMORY_RETENTION", "MODEL_PROVIDER", "MODEL_BASE_URL",
		"MODEL_TIMEOUT", "MODEL_RETRY_FOR", "MODEL_MAX_TOKENS", "REPLY_MAX_CHARS", "REPLY_PRIORITY", "EGRESS_DEADLINE", "LOG_LEVEL",
	} {
		if n := strings.Count(err.Error(), name+": "); n != 1 {
			t.Errorf("%s is reported %d times in:\n%v", name, n, err)
		}
	}
}

func TestRequiredVariablesOfProviders(t *testing.T) {
	tests := []struct {
		environ []string
		missing string // a variable; empty if nothing is
	}{
		{[]string{"MODEL_PROVIDER=gemini"}, "MODEL_NAME"},
		{[]string{"MODEL_PROVIDER=gemini", "MODEL_NAME=m"}, ""},
		{[]string{"MODEL_PROVIDER=openai", "MODEL_NAME=m"}, "OPENAI_API_KEY"},
		{[]string{"MODEL_PROVIDER=openai", "MODEL_NAME=m", "OPENAI_API_KEY=k"}, ""},
		{[]string{"MODEL_PROVIDER=openai", "MODEL_NAME=m", "MODEL_BASE_URL=http://localhost:11434/v1"}, ""},
	}
	for _, tt := range tests {
		_, err := config.Load[Config](append(tt.environ, "GOOGLE_CLOUD_PROJECT=p"))
		if (err == nil) != (tt.missing == "") || err != nil && !strings.Contains(err.Error(), tt.missing+": required") {
			t.Errorf("%v: %v; want %q to be missing", tt.environ, err, tt.missing)
		}
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	c, err := config.Load[Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "GEMINI_API_KEY=xyzzy1", "OPENAI_API_KEY=xyzzy2"})
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Model.GeminiKey) != "xyzzy1" || string(c.Model.OpenAIKey) != "xyzzy2" {
		t.Fatal("the keys were not read")
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("config", "model", c.Model, "key", c.Model.GeminiKey)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("config", "model", c.Model, "key", c.Model.GeminiKey)
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{log.String(), string(data), fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.Model.GeminiKey, c.Model.GeminiKey)} {
		if strings.Contains(shown, "xyzzy") {
			t.Errorf("a secret shows: %s", shown)
		}
	}
	if _, err := config.Load[Config]([]string{"OPENAI_API_KEY=xyzzy", "MODEL_PROVIDER=openai", "MODEL_TIMEOUT=soon"}); err == nil || strings.Contains(err.Error(), "xyzzy") {
		t.Errorf("Load = %v", err)
	}
}

func TestTokenLimitOutOfRangeIsRefused(t *testing.T) {
	for value, want := range map[string]bool{"0": true, "2147483647": true, "2147483648": false, "4294967297": false, "1e3": false} {
		_, err := config.Load[Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "MODEL_MAX_TOKENS=" + value})
		if (err == nil) != want {
			t.Errorf("MODEL_MAX_TOKENS=%s: %v; valid should be %v", value, err, want)
		}
	}
}

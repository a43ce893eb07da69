package whisper

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
)

func TestJudge(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name   string
		in     response
		want   meaning
		reason deadletter.Reason
	}{
		{"taken", response{connected: true, status: 204}, accepted, ""},
		{"taken, with another status", response{connected: true, status: 200}, accepted, ""},
		{"no connection", response{err: broken}, unsent, deadletter.PlatformUnavailable},
		{"connection broken after that", response{connected: true, err: broken}, unknown, deadletter.OutcomeUnknown},
		{"bad request", response{connected: true, status: 400}, refused, deadletter.RecipientRefused},
		{"bad token", response{connected: true, status: 401, said: "Invalid OAuth token"}, unauthorized, deadletter.SenderRefused},
		{"scope not granted", response{connected: true, status: 401, said: "Missing scope: user:manage:whispers"}, refused, deadletter.MissingScope},
		{"suspended", response{connected: true, status: 403}, refused, deadletter.SenderRefused},
		{"no such user", response{connected: true, status: 404}, refused, deadletter.RecipientRefused},
		{"time-out at the server", response{connected: true, status: 408}, unknown, deadletter.OutcomeUnknown},
		{"something else", response{connected: true, status: 422}, refused, deadletter.RecipientRefused},
		{"too many", response{connected: true, status: 429}, limited, deadletter.RateLimited},
		{"fault", response{connected: true, status: 500}, unknown, deadletter.OutcomeUnknown},
		{"unavailable", response{connected: true, status: 503}, unknown, deadletter.OutcomeUnknown},
		{"redirected", response{connected: true, status: http.StatusTemporaryRedirect}, refused, deadletter.NotConfigured},
	}
	for _, tt := range tests {
		got, why := judge(tt.in)
		var reason deadletter.Reason
		if why != nil {
			reason = why.Reason
		}
		if got != tt.want || reason != tt.reason {
			t.Errorf("%s: judge = %d, %q; want %d, %q", tt.name, got, reason, tt.want, tt.reason)
		}
	}
}

func TestHoldUntil(t *testing.T) {
	now := time.Unix(1000, 0)
	for reset, want := range map[string]int64{"1030": 1030, "": 1001, "soon": 1001, "5": 1001, "999999": 1060} {
		if got := holdUntil(reset, now); got.Unix() != want {
			t.Errorf("Ratelimit-Reset %q: held until %d; want %d", reset, got.Unix(), want)
		}
	}
}

func TestQuoteHidesTheTokenAndIsShort(t *testing.T) {
	got := quote("bad token s3cret "+strings.Repeat("x", 1000), credential.NewSecret("s3cret"))
	if strings.Contains(got, "s3cret") || len([]rune(got)) > maxSaid {
		t.Errorf("quote = %q", got)
	}
}

package whisper

import (
	"errors"
	"testing"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/twitch"
)

func TestOutcomeOf(t *testing.T) {
	for _, tt := range []struct {
		name     string
		outcome  twitch.Outcome
		reason   deadletter.Reason
		requests int // 2 if a new token may help
		want     delivery.Kind
	}{
		{"no connection", twitch.NotDone, deadletter.PlatformUnavailable, 1, delivery.NotSent},
		{"no answer", twitch.Unknown, deadletter.OutcomeUnknown, 1, delivery.Refused}, // never sent again
		{"bad token", twitch.Unauthorized, deadletter.SenderRefused, 2, delivery.Refused},
		{"scope not granted", twitch.Unauthorized, deadletter.MissingScope, 1, delivery.Refused},
		{"no login", twitch.Unauthorized, deadletter.LoginNeeded, 1, delivery.Refused},
		{"suspended", twitch.Refused, deadletter.SenderRefused, 1, delivery.Refused},
		{"no such user", twitch.Refused, deadletter.RecipientRefused, 1, delivery.Refused},
		{"too many", twitch.NotDone, deadletter.RateLimited, 1, delivery.NotSent},
		{"redirected", twitch.Refused, deadletter.NotConfigured, 1, delivery.Refused},
	} {
		f := New(Dependencies{Tokens: &tokens{scopes: []string{scope}}, Now: time.Now})
		token, failed := f.account.Token(t.Context())
		if failed != nil {
			t.Fatal(failed)
		}
		cause, requests := errors.New("x"), 0
		failed = f.account.Do(t.Context(), token, func(credential.Token) *twitch.Error {
			requests++
			return &twitch.Error{Outcome: tt.outcome, Reason: tt.reason, Err: cause}
		})
		w := &execution{function: f}
		got := w.outcomeOf(failed, time.Time{})
		if got.Kind != tt.want || got.Reason != tt.reason || !errors.Is(got.Err, cause) || requests != tt.requests {
			t.Errorf("%s: %+v after %d requests; want %d, %q after %d", tt.name, got, requests, tt.want, tt.reason, tt.requests)
		}
		// without another attempt, the reason is the same
		w.in.Attempt = maxAttempts - 1
		if got := w.outcomeOf(failed, time.Time{}); got.Kind != delivery.Refused || got.Reason != tt.reason {
			t.Errorf("%s: last attempt: %+v; want %d, %q", tt.name, got, delivery.Refused, tt.reason)
		}
	}
}

func TestAHoldLastsAtLeastASecond(t *testing.T) {
	now := time.Unix(1000, 0)
	for reset, want := range map[time.Duration]int64{30 * time.Second: 1030, 0: 1001, 100 * time.Millisecond: 1001, time.Minute: 1060} {
		if got := holdUntil(reset, now); got.Unix() != want {
			t.Errorf("reset in %s: held until %d; want %d", reset, got.Unix(), want)
		}
	}
}

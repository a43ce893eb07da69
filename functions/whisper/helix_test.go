package whisper

import (
	"errors"
	"testing"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/twitch"
)

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outcome twitch.Outcome
		reason  deadletter.Reason
		want    meaning
	}{
		{"no connection", twitch.NotDone, deadletter.PlatformUnavailable, unsent},
		{"no answer", twitch.Unknown, deadletter.OutcomeUnknown, unknown},
		{"bad token", twitch.Unauthorized, deadletter.SenderRefused, unauthorized},
		{"scope not granted", twitch.Unauthorized, deadletter.MissingScope, refused},
		{"suspended", twitch.Refused, deadletter.SenderRefused, refused},
		{"no such user", twitch.Refused, deadletter.RecipientRefused, refused},
		{"too many", twitch.NotDone, deadletter.RateLimited, limited},
		{"redirected", twitch.Refused, deadletter.NotConfigured, refused},
	} {
		got, why := judge(response{failed: &twitch.Error{Outcome: tt.outcome, Reason: tt.reason, Err: errors.New("x")}})
		if got != tt.want || why == nil || why.Reason != tt.reason {
			t.Errorf("%s: judge = %d, %v; want %d, %q", tt.name, got, why, tt.want, tt.reason)
		}
	}
	if got, why := judge(response{}); got != accepted || why != nil {
		t.Errorf("judge of success = %d, %v", got, why)
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

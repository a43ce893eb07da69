package twitch

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
)

func TestErrorTable(t *testing.T) {
	for _, tt := range []struct {
		name    string
		op      Operation
		status  int
		message string
		want    Outcome
		reason  deadletter.Reason
	}{
		{"connection broken", SendWhisper, 0, "", Unknown, deadletter.OutcomeUnknown},
		{"bad request", SendWhisper, 400, "", Refused, deadletter.RecipientRefused},
		{"bad token", SendWhisper, 401, "Invalid OAuth token", Unauthorized, deadletter.SenderRefused},
		{"scope not granted", SendWhisper, 401, "Missing scope: user:manage:whispers", Unauthorized, deadletter.MissingScope},
		{"suspended", SendWhisper, 403, "", Refused, deadletter.SenderRefused},
		{"no such user", SendWhisper, 404, "", Refused, deadletter.RecipientRefused},
		{"time-out at the server", SendWhisper, 408, "", Unknown, deadletter.OutcomeUnknown},
		{"another 4xx", SendWhisper, 422, "", Refused, deadletter.RecipientRefused},
		{"too many requests", SendWhisper, 429, "", NotDone, deadletter.RateLimited},
		{"server error", SendWhisper, 500, "", Unknown, deadletter.OutcomeUnknown},
		{"unavailable", SendWhisper, 503, "", Unknown, deadletter.OutcomeUnknown},
		{"redirect", SendWhisper, http.StatusTemporaryRedirect, "", Refused, deadletter.NotConfigured},
		{"no HTTP status", SendWhisper, 42, "", Unknown, deadletter.OutcomeUnknown},

		{"chat: not accepted", SendChatMessage, 503, "", NotDone, deadletter.PlatformUnavailable},
		{"chat: server error", SendChatMessage, 500, "", Unknown, deadletter.OutcomeUnknown},
		{"chat: bad request", SendChatMessage, 400, "", Refused, deadletter.PlatformRefused},
		{"chat: too long", SendChatMessage, 422, "", Refused, deadletter.PlatformRefused},
		{"chat: forbidden", SendChatMessage, 403, "", Refused, deadletter.SenderRefused},
		{"chat: bad token", SendChatMessage, 401, "", Unauthorized, deadletter.SenderRefused},
		{"chat: too many requests", SendChatMessage, 429, "", NotDone, deadletter.RateLimited},

		{"ban: banned before", BanUser, 400, "The user specified in the user_id field is already banned.", AlreadyDone, ""},
		{"ban: another moderator", BanUser, 400, "The user may not be banned.", Refused, deadletter.RecipientRefused},
		{"ban: conflict", BanUser, 409, "", NotDone, deadletter.RecipientRefused},
		{"unban: not banned", UnbanUser, 400, "The user is not banned.", AlreadyDone, ""},
		{"unban: conflict", UnbanUser, 409, "", NotDone, deadletter.RecipientRefused},
		{"delete: gone", DeleteMessage, 404, "", AlreadyDone, ""},
		{"ban: no such channel", BanUser, 404, "", Refused, deadletter.RecipientRefused},

		{"subscribe: exists", CreateSubscription, 409, "", AlreadyDone, ""},
		{"unsubscribe: gone", DeleteSubscription, 404, "", AlreadyDone, ""},
		{"subscribe: not allowed", CreateSubscription, 403, "", Refused, deadletter.SenderRefused},

		{"read: no answer", GetUsers, 0, "", NotDone, deadletter.PlatformUnavailable},
		{"read: server error", GetUsers, 502, "", NotDone, deadletter.PlatformUnavailable},
	} {
		x := &exchange{status: tt.status, body: []byte(`{"message":"` + tt.message + `"}`)}
		x.connected.Store(true)
		e := New(Config{}).judge(tt.op, x, credential.Token{})
		if e == nil || e.Outcome != tt.want || e.Reason != tt.reason || e.Status != tt.status || !strings.Contains(e.Error(), tt.message) {
			t.Errorf("%s: %+v; want %d, %q", tt.name, e, tt.want, tt.reason)
		}
	}
	if e := New(Config{}).judge(SendWhisper, &exchange{err: errors.New("broken")}, credential.Token{}); e.Outcome != NotDone || e.Reason != deadletter.PlatformUnavailable {
		t.Errorf("no connection: %+v", e)
	}
	for _, status := range []int{200, 204} {
		if e := New(Config{}).judge(SendWhisper, &exchange{status: status}, credential.Token{}); e != nil {
			t.Errorf("status %d: %v", status, e)
		}
	}
}

func documented(r deadletter.Reason) bool {
	return slices.ContainsFunc(deadletter.Reasons, func(i deadletter.ReasonInfo) bool { return i.Reason == r })
}

func TestEveryReasonIsDocumented(t *testing.T) {
	for _, r := range table {
		if r.reason != "" && !documented(r.reason) || (r.reason == "") != (r.outcome == AlreadyDone) {
			t.Errorf("%+v: reason %q", r, r.reason)
		}
	}
	for code, r := range chatReasons {
		if !documented(r) {
			t.Errorf("%s: reason %q", code, r)
		}
	}
}

func TestChatRefusal(t *testing.T) {
	for code, want := range map[string]struct {
		outcome Outcome
		reason  deadletter.Reason
	}{
		"msg_rejected":          {Refused, deadletter.PlatformRefused},
		"msg_duplicate":         {Refused, deadletter.PlatformRefused},
		"a code of the future":  {Refused, deadletter.PlatformRefused},
		"msg_banned":            {Refused, deadletter.SenderRefused},
		"msg_timedout":          {Refused, deadletter.SenderRefused},
		"no_permission":         {Refused, deadletter.SenderRefused},
		"msg_channel_suspended": {Refused, deadletter.RecipientRefused},
		"msg_slowmode":          {Refused, deadletter.RateLimited},
		"msg_ratelimit":         {NotDone, deadletter.RateLimited},
	} {
		e := ChatRefusal(code, "Twitch's words")
		if e.Outcome != want.outcome || e.Reason != want.reason || !strings.Contains(e.Error(), code+": Twitch's words") || (e.After > 0) != (e.Outcome == NotDone) {
			t.Errorf("%s: %+v; want %+v", code, e, want)
		}
	}
}

func TestResetIn(t *testing.T) {
	now := time.Unix(1000, 0)
	for reset, want := range map[string]time.Duration{"1030": 30 * time.Second, "": 0, "soon": 0, "5": minReset, "999999": time.Minute} {
		if got := resetIn(http.Header{"Ratelimit-Reset": {reset}}, now); got != want {
			t.Errorf("Ratelimit-Reset %q: %s; want %s", reset, got, want)
		}
	}
}

func TestQuoteHidesTheTokenAndIsShort(t *testing.T) {
	got := quote("bad token s3cret "+strings.Repeat("ü", 1000), credential.NewSecret("s3cret"))
	if strings.Contains(got, "s3cret") || len([]rune(got)) > maxQuote {
		t.Errorf("quote = %q", got)
	}
}

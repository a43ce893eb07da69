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
		{"chat: timed out", SendChatMessage, 403, "You are timed out from talking in the room.", NotDone, deadletter.SenderRefused},
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
		if _, both := passing[code]; both || !documented(r) {
			t.Errorf("%s: reason %q, also passing: %t", code, r, both)
		}
	}
	for code, p := range passing {
		if !documented(p.reason) || p.pause <= 0 {
			t.Errorf("%s: %+v", code, p)
		}
	}
}

func TestChatRefusal(t *testing.T) {
	const limited, banned, room, other = deadletter.RateLimited, deadletter.SenderRefused, deadletter.RecipientRefused, deadletter.PlatformRefused
	for _, tt := range []struct {
		code, words string
		outcome     Outcome
		reason      deadletter.Reason
		after       time.Duration
	}{
		{"msg_duplicate", "Your message is identical to the previous one you sent, less than 30 seconds ago.", NotDone, limited, 5 * time.Second},
		{"msg_ratelimit", "You are sending messages too quickly.", NotDone, limited, 2 * time.Second},
		{"msg_slowmode", "You will be able to talk again in 12 seconds.", NotDone, limited, 12 * time.Second},
		{"msg_slowmode", "You will be able to talk again in 1 second.", NotDone, limited, time.Second},
		{"msg_slowmode", "You will be able to talk again in 0 seconds.", NotDone, limited, time.Second},
		{"msg_slowmode", "This room is in slow mode.", NotDone, limited, 5 * time.Second},
		{"msg_timedout", "You are timed out for 6 more seconds.", NotDone, banned, 6 * time.Second},
		{"msg_timedout", "You are timed out for 1209600 more seconds.", NotDone, banned, 14 * 24 * time.Hour},
		{"msg_timedout", "You are timed out for 99999999999999999999 more seconds.", NotDone, banned, 999999999 * time.Second},
		{"user_timed_out", "You are timed out from talking in the room.", NotDone, banned, 5 * time.Second},

		{"msg_banned", "You are permanently banned from talking in x.", Refused, banned, 0},
		{"msg_suspended", "You don't have permission to perform that action.", Refused, banned, 0},
		{"msg_followersonly", "This room is in 10 minutes followers-only mode.", Refused, banned, 0},
		{"msg_followersonly_zero", "Follow x to join the community!", Refused, banned, 0},
		{"msg_followersonly_followed", "You have been following for 2 seconds.", Refused, banned, 0},
		{"msg_subsonly", "This room is in subscribers only mode.", Refused, banned, 0},
		{"msg_verified_email", "This room requires a verified account.", Refused, banned, 0},
		{"msg_requires_verified_phone_number", "A verified phone number is required.", Refused, banned, 0},
		{"no_permission", "You don't have permission to perform that action.", Refused, banned, 0},
		{"user_warned", "You have been warned.", Refused, banned, 0},
		{"msg_channel_suspended", "This channel has been suspended.", Refused, room, 0},
		{"msg_emoteonly", "This room is in emote only mode.", Refused, other, 0},
		{"msg_r9k", "This room is in unique-chat mode.", Refused, other, 0},
		{"msg_rejected", "Your message is being checked by mods.", Refused, other, 0},
		{"a code of the future", "Wait 3 seconds.", Refused, other, 0},
	} {
		e := ChatRefusal(tt.code, tt.words)
		if e.Outcome != tt.outcome || e.Reason != tt.reason || e.After != tt.after || e.Passes != (e.Outcome == NotDone) || !strings.Contains(e.Error(), tt.code+": "+tt.words) {
			t.Errorf("%s: %s: %+v; want %+v", tt.code, tt.words, e, tt)
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

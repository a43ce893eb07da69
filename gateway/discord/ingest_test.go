package discord

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/shared/config"
	"parley.internal/shared/event"
)

const (
	botID   = "100000000000000001"
	aliceID = "200000000000000001"
	guildID = "300000000000000001"
	roomID  = "400000000000000001"
)

// aListener knows one server, with a text channel and a thread in it.
func aListener(t *testing.T) listener {
	t.Helper()
	l := listener{bot: botID, guilds: newGuilds()}
	tell(t, l, "GUILD_CREATE", `{"id":"`+guildID+`","name":"Guild","owner_id":"`+aliceID+`","system_channel_id":"`+roomID+`",
		"roles":[{"id":"1","name":"@everyone"},{"id":"11","name":"Mods"},{"id":"12","name":"Patrons"}],
		"channels":[{"id":"`+roomID+`","name":"general","type":0}],"threads":[{"id":"401","name":"help","type":11,"parent_id":"`+roomID+`"}]}`)
	return l
}

func tell(t *testing.T, l listener, kind, data string) {
	t.Helper()
	if _, _, err := l.guilds.told(kind, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// said is a MESSAGE_CREATE in the channel, with more members.
func said(more string) string {
	return `{"id":"500000000000000001","channel_id":"` + roomID + `","guild_id":"` + guildID + `","content":"hello","timestamp":"2026-01-02T03:04:05.678000+00:00",
		"author":{"id":"` + aliceID + `","username":"alice","global_name":"Alice"},"member":{"nick":"Al","roles":["11"]},"type":0` + more + `}`
}

func one(t *testing.T, l listener, kind, data string) item {
	t.Helper()
	items, err := l.of(kind, []byte(data))
	if err != nil || len(items) != 1 {
		t.Fatalf("%d items (%v); want one", len(items), err)
	}
	return items[0]
}

func rawOfMessage(t *testing.T, e *event.Event) map[string]any {
	t.Helper()
	var raw map[string]any
	if err := json.Unmarshal(e.Message.RawPlatformPayload, &raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAMessageBecomesAnEvent(t *testing.T) {
	l := aListener(t)
	it := one(t, l, "MESSAGE_CREATE", said(`,"mentions":[{"id":"`+botID+`","username":"parley"}],"mention_everyone":true,"mention_roles":["12"],
		"attachments":[{"id":"9","filename":"cat.png","url":"https://cdn.example/cat.png","content_type":"image/png","size":7}],
		"sticker_items":[{"id":"8","name":"wave"}],"components":[{"type":99}]`))
	e := it.event
	if e.Type != event.TypeChatMessage || e.Source != Source || e.CorrelationID != "discord:500000000000000001" || e.Channel != "discord:"+roomID ||
		e.UserID != "discord:"+aliceID || e.Message.Text != "hello" || e.Message.Role != event.RoleUser || e.Message.ID != "500000000000000001" ||
		e.Auth.Provider != "discord" || it.mark != 500000000000000001 {
		t.Errorf("event = %+v", e)
	}
	if err := e.Validate(); err != nil {
		t.Error(err)
	}
	raw := rawOfMessage(t, e)
	for name, want := range map[string]any{
		"userId": aliceID, "username": "alice", "displayName": "Al", "nick": "Al", "guildId": guildID, "guildName": "Guild", "guildOwnerId": aliceID,
		"isOwner": true, "channelId": roomID, "channelName": "general", "mentionsBot": true, "mentionsEveryone": true,
		"roleNames": []any{"Mods"}, "roles": []any{"11"}, "stickers": []any{"wave"},
		"attachments": []any{map[string]any{"name": "cat.png", "url": "https://cdn.example/cat.png", "contentType": "image/png", "size": 7.0}},
	} {
		if got := fmt.Sprint(raw[name]); got != fmt.Sprint(want) {
			t.Errorf("%s = %s; want %v", name, got, want)
		}
	}
}

func TestWhatIsNoMessageOfAPerson(t *testing.T) {
	l := aListener(t)
	for name, data := range map[string]string{
		"the bot's own": strings.Replace(said(""), aliceID, botID, 1),
		"a bot's":       strings.Replace(said(""), `"username":"alice"`, `"username":"alice","bot":true`, 1),
		"a webhook's":   said(`,"webhook_id":"7"`),
		"Discord's own": strings.Replace(said(""), `"type":0`, `"type":6`, 1),
		"an empty one":  strings.Replace(said(""), "hello", " ", 1),
	} {
		if it := one(t, l, "MESSAGE_CREATE", data); it.event != nil || it.mark == 0 {
			t.Errorf("%s: %+v; want no event, but to be past it", name, it)
		}
	}
}

func TestRolesAreThoseOfTheMoment(t *testing.T) {
	l := aListener(t)
	names := func(data string) any { return rawOfMessage(t, one(t, l, "MESSAGE_CREATE", data).event)["roleNames"] }
	tell(t, l, "GUILD_ROLE_UPDATE", `{"guild_id":"`+guildID+`","role":{"id":"11","name":"Guards"}}`)
	tell(t, l, "GUILD_ROLE_CREATE", `{"guild_id":"`+guildID+`","role":{"id":"13","name":"New"}}`)
	if got := fmt.Sprint(names(strings.Replace(said(""), `["11"]`, `["11","13"]`, 1))); got != "[Guards New]" {
		t.Errorf("roles = %s", got)
	}
	tell(t, l, "GUILD_ROLE_DELETE", `{"guild_id":"`+guildID+`","role_id":"13"}`)
	if got := fmt.Sprint(names(strings.Replace(said(""), `["11"]`, `["13"]`, 1))); got != "[]" {
		t.Errorf("roles = %s; want none left, and that to be told", got)
	}
	direct := strings.Replace(strings.Replace(said(""), `"guild_id":"`+guildID+`",`, "", 1), roomID, "999", 1)
	raw := rawOfMessage(t, one(t, l, "MESSAGE_CREATE", direct).event)
	if _, told := raw["roleNames"]; told || raw["isDirect"] != true || raw["guildOwnerId"] != nil {
		t.Errorf("a direct message tells of roles: %v", raw)
	}
}

func TestRepliesAndThreads(t *testing.T) {
	l := aListener(t)
	reply := strings.Replace(said(`,"message_reference":{"message_id":"499","channel_id":"`+roomID+`"},
		"referenced_message":{"id":"499","content":"before","author":{"id":"`+botID+`","username":"parley"},"components":[{"type":99}]}`), `"type":0`, `"type":19`, 1)
	e := one(t, l, "MESSAGE_CREATE", reply).event
	raw := rawOfMessage(t, e)
	if e.ReplyTo != "499" || raw["mentionsBot"] != true || fmt.Sprint(raw["replyParent"]) != fmt.Sprint(map[string]any{"messageId": "499", "userId": botID, "username": "parley", "displayName": "parley", "text": "before"}) {
		t.Errorf("replyTo = %s, raw = %v", e.ReplyTo, raw)
	}
	thread := strings.Replace(said(""), roomID, "401", 1)
	raw = rawOfMessage(t, one(t, l, "MESSAGE_CREATE", thread).event)
	if raw["isThread"] != true || raw["parentName"] != "general" || raw["channelName"] != "help" {
		t.Errorf("raw = %v", raw)
	}
}

func TestWhatElseHappens(t *testing.T) {
	l := aListener(t)
	edited := said(`,"edited_timestamp":"2026-01-02T03:05:00+00:00"`)
	for _, test := range []struct{ name, kind, data, want, channel, user string }{
		{"edited", "MESSAGE_UPDATE", edited, TypeEdited, roomID, aliceID},
		{"deleted", "MESSAGE_DELETE", `{"id":"5","channel_id":"` + roomID + `","guild_id":"` + guildID + `"}`, TypeDeleted, roomID, ""},
		{"banned", "GUILD_BAN_ADD", `{"guild_id":"` + guildID + `","user":{"id":"` + aliceID + `","username":"alice"}}`, TypeBanned, roomID, ""},
		{"unbanned", "GUILD_BAN_REMOVE", `{"guild_id":"` + guildID + `","user":{"id":"` + aliceID + `","username":"alice"}}`, TypeUnbanned, roomID, ""},
		{"joined", "GUILD_MEMBER_ADD", `{"guild_id":"` + guildID + `","joined_at":"2026-01-02T03:05:00+00:00","roles":[],"user":{"id":"` + aliceID + `","username":"alice"}}`, TypeJoined, roomID, aliceID},
		{"left", "GUILD_MEMBER_REMOVE", `{"guild_id":"` + guildID + `","user":{"id":"` + aliceID + `","username":"alice"}}`, TypeLeft, roomID, aliceID},
		{"joined, as a message", "MESSAGE_CREATE", strings.Replace(said(""), `"type":0`, `"type":7`, 1), TypeJoined, roomID, aliceID},
		{"boosted", "MESSAGE_CREATE", strings.Replace(said(""), `"type":0`, `"type":8`, 1), TypeBoosted, roomID, aliceID},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := one(t, l, test.kind, test.data).event
			user := ""
			if test.user != "" {
				user = "discord:" + test.user
			}
			if e.Type != test.want || e.Channel != "discord:"+test.channel || e.UserID != user || "discord."+e.ExternalEvent.Kind != test.want {
				t.Errorf("%s in %s of %s (%s)", e.Type, e.Channel, e.UserID, e.ExternalEvent.Kind)
			}
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
	first, again := one(t, l, "MESSAGE_UPDATE", edited).event, one(t, l, "MESSAGE_UPDATE", edited).event
	if first.CorrelationID != again.CorrelationID {
		t.Error("the same edit is two events")
	}
	if items, err := l.of("MESSAGE_UPDATE", []byte(said(""))); err != nil || len(items) != 0 {
		t.Errorf("a preview is taken for an edit: %v (%v)", items, err)
	}
	if items, _ := l.of("MESSAGE_DELETE_BULK", []byte(`{"ids":["5","6"],"channel_id":"`+roomID+`"}`)); len(items) != 2 {
		t.Errorf("%d items; want one for each that is deleted", len(items))
	}
}

func FuzzListener(f *testing.F) {
	f.Add("MESSAGE_CREATE", said(""))
	f.Add("GUILD_CREATE", `{"id":"1","channels":[{"id":"2"}]}`)
	f.Add("MESSAGE_DELETE_BULK", `{"ids":["1"]}`)
	f.Add("GUILD_BAN_ADD", `{"user":{"id":"1"}}`)
	f.Fuzz(func(t *testing.T, kind, data string) {
		l := listener{bot: botID, guilds: newGuilds()}
		_, _, _ = l.guilds.told(kind, []byte(data))
		items, err := l.of(kind, []byte(data))
		for _, it := range items {
			if err == nil && it.event != nil && it.event.Type == event.TypeChatMessage {
				if err := it.event.Validate(); err != nil {
					t.Errorf("an event that nobody takes: %v", err)
				}
			}
		}
	})
}

func TestSnowflake(t *testing.T) {
	// the example of https://discord.com/developers/docs/reference#snowflakes
	f, ok := parseSnowflake("175928847299117063")
	if want := time.Date(2016, 4, 30, 11, 18, 25, 796e6, time.UTC); !ok || !f.time().Equal(want) || f.String() != "175928847299117063" {
		t.Errorf("%s is of %s; want %s", f, f.time(), want)
	}
	if at := snowflakeAt(f.time()); at > f || snowflakeAt(f.time().Add(time.Millisecond)) <= f {
		t.Errorf("%d is not the first of its millisecond", at)
	}
	for _, wrong := range []string{"", "0", "01", "+1", "-1", "x", "99999999999999999999999"} {
		if f, ok := parseSnowflake(wrong); ok {
			t.Errorf("%q is taken for %d", wrong, f)
		}
	}
}

func TestConfig(t *testing.T) {
	c, err := config.Load[Config](nil)
	if err != nil || c.Enabled() || c.APIURL != "https://discord.com/api" {
		t.Errorf("by default %+v (%v); want it off", c, err)
	}
	on := []string{"DISCORD_BOT_TOKEN=secret-token", "DISCORD_GUILDS=1,2"}
	if c, err := config.Load[Config](on); err != nil || !c.Enabled() || strings.Contains(fmt.Sprintf("%+v", c), "secret") {
		t.Errorf("%+v (%v); want it on", c, err)
	}
	for _, wrong := range []string{
		"DISCORD_GUILDS=one", "DISCORD_API_URL=http://example.com/api", "DISCORD_API_URL=https://x/?a=b", "DISCORD_ANSWER_TIMEOUT=1h",
		"DISCORD_BACKFILL_AGE=-1s", "DISCORD_BACKFILL_MESSAGES=-1",
	} {
		if _, err := config.Load[Config](append(slices.Clone(on), wrong)); err == nil || !strings.Contains(err.Error(), strings.Split(wrong, "=")[0]) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

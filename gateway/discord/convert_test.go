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

// newTestConverter returns a converter with one server, with a text channel and a thread.
func newTestConverter(t *testing.T) converter {
	t.Helper()
	c := converter{bot: botID, guilds: newGuilds()}
	update(t, c, "GUILD_CREATE", `{"id":"`+guildID+`","name":"Guild","owner_id":"`+aliceID+`","system_channel_id":"`+roomID+`",
		"roles":[{"id":"1","name":"@everyone"},{"id":"11","name":"Mods"},{"id":"12","name":"Patrons"}],
		"channels":[{"id":"`+roomID+`","name":"general","type":0}],"threads":[{"id":"401","name":"help","type":11,"parent_id":"`+roomID+`"}]}`)
	return c
}

func update(t *testing.T, c converter, kind, data string) {
	t.Helper()
	if _, _, err := c.guilds.update(kind, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// messageCreate returns a MESSAGE_CREATE in the text channel. more is added to its JSON.
func messageCreate(more string) string {
	return `{"id":"500000000000000001","channel_id":"` + roomID + `","guild_id":"` + guildID + `","content":"hello","timestamp":"2026-01-02T03:04:05.678000+00:00",
		"author":{"id":"` + aliceID + `","username":"alice","global_name":"Alice"},"member":{"nick":"Al","roles":["11"]},"type":0` + more + `}`
}

func one(t *testing.T, c converter, kind, data string) item {
	t.Helper()
	items, err := c.convert(kind, []byte(data))
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

func TestMessageBecomesAnEvent(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	it := one(t, c, "MESSAGE_CREATE", strings.Replace(messageCreate(`,"mentions":[{"id":"`+botID+`","username":"parley","global_name":"Parley"}],"mention_everyone":true,"mention_roles":["12"],
		"attachments":[{"id":"9","filename":"cat.png","url":"https://cdn.example/cat.png","content_type":"image/png","size":7}],
		"sticker_items":[{"id":"8","name":"wave"}],"components":[{"type":99}]`), "hello", "<@!"+botID+"> hello", 1))
	e := it.event
	if e.Type != event.TypeChatMessage || e.Source != Source || e.CorrelationID != "discord:500000000000000001" || e.Channel != "discord:"+roomID ||
		e.UserID != "discord:"+aliceID || e.Message.Text != "@Parley hello\ncat.png https://cdn.example/cat.png\nSticker: wave" || !e.Message.MentionsBot || e.Message.Role != event.RoleUser || e.Message.ID != "500000000000000001" ||
		e.Auth.Provider != "discord" || it.messageID != 500000000000000001 {
		t.Errorf("event = %+v", e)
	}
	if err := e.Validate(); err != nil {
		t.Error(err)
	}
	raw := rawOfMessage(t, e)
	for name, want := range map[string]any{
		"userId": aliceID, "username": "alice", "displayName": "Al", "nick": "Al", "guildId": guildID, "guildName": "Guild", "guildOwnerId": aliceID,
		"isOwner": true, "channelId": roomID, "channelName": "general", "mentionsBot": true, "mentionsEveryone": true, "content": "<@!" + botID + "> hello",
		"roleNames": []any{"Mods"}, "roles": []any{"11"}, "stickers": []any{"wave"},
		"attachments": []any{map[string]any{"name": "cat.png", "url": "https://cdn.example/cat.png", "contentType": "image/png", "size": 7.0}},
	} {
		if got := fmt.Sprint(raw[name]); got != fmt.Sprint(want) {
			t.Errorf("%s = %s; want %v", name, got, want)
		}
	}
}

func TestMessagesOfBotsAndDiscordAreNoEvents(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	for name, data := range map[string]string{
		"of the bot":     strings.Replace(messageCreate(""), aliceID, botID, 1),
		"of another bot": strings.Replace(messageCreate(""), `"username":"alice"`, `"username":"alice","bot":true`, 1),
		"of a webhook":   messageCreate(`,"webhook_id":"7"`),
		"of Discord":     strings.Replace(messageCreate(""), `"type":0`, `"type":6`, 1),
		"invisible":      strings.Replace(messageCreate(""), "hello", "\u200b \u2800\U000e0000", 1),
		"empty":          strings.Replace(messageCreate(""), "hello", " ", 1),
	} {
		if it := one(t, c, "MESSAGE_CREATE", data); it.event != nil || it.messageID == 0 {
			t.Errorf("%s: %+v; want an item with a message id and without event", name, it)
		}
	}
}

func TestEventsHaveTheCurrentRoles(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	names := func(data string) any { return rawOfMessage(t, one(t, c, "MESSAGE_CREATE", data).event)["roleNames"] }
	update(t, c, "GUILD_ROLE_UPDATE", `{"guild_id":"`+guildID+`","role":{"id":"11","name":"Guards"}}`)
	update(t, c, "GUILD_ROLE_CREATE", `{"guild_id":"`+guildID+`","role":{"id":"13","name":"New"}}`)
	if got := fmt.Sprint(names(strings.Replace(messageCreate(""), `["11"]`, `["11","13"]`, 1))); got != "[Guards New]" {
		t.Errorf("roles = %s", got)
	}
	update(t, c, "GUILD_ROLE_DELETE", `{"guild_id":"`+guildID+`","role_id":"13"}`)
	if got := fmt.Sprint(names(strings.Replace(messageCreate(""), `["11"]`, `["13"]`, 1))); got != "[]" {
		t.Errorf("roles = %s; want an empty list", got)
	}
	direct := strings.Replace(strings.Replace(messageCreate(""), `"guild_id":"`+guildID+`",`, "", 1), roomID, "999", 1)
	raw := rawOfMessage(t, one(t, c, "MESSAGE_CREATE", direct).event)
	if _, ok := raw["roleNames"]; ok || raw["isDirect"] != true || raw["guildOwnerId"] != nil {
		t.Errorf("payload of a direct message: %v; want no roles", raw)
	}
}

// A reply on Discord has no mention in its text, so a command in a reply is the command.
func TestCommandsInReplies(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	parent := func(author, content string) string {
		return `{"id":"499","content":"` + content + `","author":{"id":"` + author + `","username":"parent"}}`
	}
	reply := func(parent string) string {
		more := `,"message_reference":{"message_id":"499","channel_id":"` + roomID + `"},"referenced_message":` + parent
		return strings.Replace(strings.Replace(messageCreate(more), `"type":0`, `"type":19`, 1), "hello", "!help", 1)
	}
	direct := func(data string) string {
		return strings.Replace(strings.Replace(data, `"guild_id":"`+guildID+`",`, "", 1), `"channel_id":"`+roomID+`"`, `"channel_id":"999"`, 1)
	}
	plain := strings.Replace(messageCreate(""), "hello", "!help", 1)
	for _, tt := range []struct {
		name, data  string
		reply       bool
		mentionsBot bool
	}{
		{"no reply", plain, false, false},
		{"direct message", direct(plain), false, false},
		{"reply to a person", reply(parent("77", "hi")), true, false},
		{"reply to the bot", reply(parent(botID, "hi")), true, true},
		{"reply to the bot with a ping", strings.Replace(reply(parent(botID, "hi")), `"type":19`, `"type":19,"mentions":[{"id":"`+botID+`","username":"parley"}]`, 1), true, true},
		{"reply to a deleted message", reply("null"), true, false},
		{"reply to oneself", reply(parent(aliceID, "!roles")), true, false},
		{"reply in a direct message", direct(reply(parent(botID, "hi"))), true, true},
		{"reply in a thread", strings.Replace(reply(parent("77", "hi")), `"channel_id":"`+roomID+`"`, `"channel_id":"401"`, 1), true, false},
	} {
		e := one(t, c, "MESSAGE_CREATE", tt.data).event
		if e == nil || e.Message.Text != "!help" || (e.ReplyTo == "499") != tt.reply || e.Message.MentionsBot != tt.mentionsBot {
			t.Errorf("%s: %+v", tt.name, e)
		}
	}
}

func TestRepliesAndThreads(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	reply := strings.Replace(messageCreate(`,"message_reference":{"message_id":"499","channel_id":"`+roomID+`"},
		"referenced_message":{"id":"499","content":"before","author":{"id":"`+botID+`","username":"parley"},"components":[{"type":99}]}`), `"type":0`, `"type":19`, 1)
	e := one(t, c, "MESSAGE_CREATE", reply).event
	raw := rawOfMessage(t, e)
	if e.ReplyTo != "499" || raw["mentionsBot"] != true || fmt.Sprint(raw["replyParent"]) != fmt.Sprint(map[string]any{"messageId": "499", "userId": botID, "username": "parley", "displayName": "parley", "text": "before"}) {
		t.Errorf("replyTo = %s, raw = %v", e.ReplyTo, raw)
	}
	thread := strings.Replace(messageCreate(""), roomID, "401", 1)
	raw = rawOfMessage(t, one(t, c, "MESSAGE_CREATE", thread).event)
	if raw["isThread"] != true || raw["parentName"] != "general" || raw["channelName"] != "help" {
		t.Errorf("raw = %v", raw)
	}
}

func TestOtherDispatchesBecomeEvents(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	edited := messageCreate(`,"edited_timestamp":"2026-01-02T03:05:00+00:00"`)
	for _, test := range []struct{ name, kind, data, want, channel, user string }{
		{"edited", "MESSAGE_UPDATE", edited, TypeEdited, roomID, aliceID},
		{"deleted", "MESSAGE_DELETE", `{"id":"5","channel_id":"` + roomID + `","guild_id":"` + guildID + `"}`, TypeDeleted, roomID, ""},
		{"banned", "GUILD_BAN_ADD", `{"guild_id":"` + guildID + `","user":{"id":"` + aliceID + `","username":"alice"}}`, TypeBanned, roomID, ""},
		{"unbanned", "GUILD_BAN_REMOVE", `{"guild_id":"` + guildID + `","user":{"id":"` + aliceID + `","username":"alice"}}`, TypeUnbanned, roomID, ""},
		{"joined", "GUILD_MEMBER_ADD", `{"guild_id":"` + guildID + `","joined_at":"2026-01-02T03:05:00+00:00","roles":[],"user":{"id":"` + aliceID + `","username":"alice"}}`, TypeJoined, roomID, aliceID},
		{"left", "GUILD_MEMBER_REMOVE", `{"guild_id":"` + guildID + `","user":{"id":"` + aliceID + `","username":"alice"}}`, TypeLeft, roomID, aliceID},
		{"joined, as a message", "MESSAGE_CREATE", strings.Replace(messageCreate(""), `"type":0`, `"type":7`, 1), TypeJoined, roomID, aliceID},
		{"boosted", "MESSAGE_CREATE", strings.Replace(messageCreate(""), `"type":0`, `"type":8`, 1), TypeBoosted, roomID, aliceID},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := one(t, c, test.kind, test.data).event
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
	first, again := one(t, c, "MESSAGE_UPDATE", edited).event, one(t, c, "MESSAGE_UPDATE", edited).event
	if first.CorrelationID != again.CorrelationID {
		t.Error("the same edit is two events")
	}
	if items, err := c.convert("MESSAGE_UPDATE", []byte(messageCreate(""))); err != nil || len(items) != 0 {
		t.Errorf("an added preview became an edit: %v (%v)", items, err)
	}
	if items, _ := c.convert("MESSAGE_DELETE_BULK", []byte(`{"ids":["5","6"],"channel_id":"`+roomID+`"}`)); len(items) != 2 {
		t.Errorf("%d items; want one per deleted message", len(items))
	}
}

func FuzzConverter(f *testing.F) {
	f.Add("MESSAGE_CREATE", messageCreate(""))
	f.Add("GUILD_CREATE", `{"id":"1","channels":[{"id":"2"}]}`)
	f.Add("MESSAGE_DELETE_BULK", `{"ids":["1"]}`)
	f.Add("GUILD_BAN_ADD", `{"user":{"id":"1"}}`)
	f.Fuzz(func(t *testing.T, kind, data string) {
		c := converter{bot: botID, guilds: newGuilds()}
		_, _, _ = c.guilds.update(kind, []byte(data))
		items, err := c.convert(kind, []byte(data))
		for _, it := range items {
			if err == nil && it.event != nil && it.event.Type == event.TypeChatMessage {
				if err := it.event.Validate(); err != nil {
					t.Errorf("invalid event: %v", err)
				}
			}
		}
	})
}

func TestSnowflake(t *testing.T) {
	t.Parallel()
	// the example of https://discord.com/developers/docs/reference#snowflakes
	f, ok := parseSnowflake("175928847299117063")
	if want := time.Date(2016, 4, 30, 11, 18, 25, 796e6, time.UTC); !ok || !f.time().Equal(want) || f.String() != "175928847299117063" {
		t.Errorf("%s has the time %s; want %s", f, f.time(), want)
	}
	if at := snowflakeAt(f.time()); at > f || snowflakeAt(f.time().Add(time.Millisecond)) <= f {
		t.Errorf("%d is not the smallest id of its millisecond", at)
	}
	for _, wrong := range []string{"", "0", "01", "+1", "-1", "x", "99999999999999999999999"} {
		if f, ok := parseSnowflake(wrong); ok {
			t.Errorf("%q was read as %d", wrong, f)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := config.Load[Config](nil)
	if err != nil || c.Enabled() || c.APIURL != "https://discord.com/api" {
		t.Errorf("default = %+v (%v); want Discord off", c, err)
	}
	on := []string{"DISCORD_BOT_TOKEN=secret-token", "DISCORD_GUILDS=1,2"}
	if c, err := config.Load[Config](on); err != nil || !c.Enabled() || strings.Contains(fmt.Sprintf("%+v", c), "secret") {
		t.Errorf("%+v (%v); want Discord on", c, err)
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

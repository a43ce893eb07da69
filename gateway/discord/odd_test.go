package discord

import (
	"fmt"
	"strings"
	"testing"

	"parley.internal/shared/event"
)

// oddDispatch is a dispatch of Discord's gateway with the documented result: the type and the text of its event, or no
// type for no event. With broken set, the data can't be read; the gateway logs such a dispatch and continues.
type oddDispatch struct {
	name, kind, data string
	broken           bool
	want, text       string
}

func oddDispatches() []oddDispatch {
	const create = "MESSAGE_CREATE"
	content := func(text string) string { return strings.Replace(messageCreate(""), `"hello"`, text, 1) }
	with := func(old, new string) string { return strings.Replace(messageCreate(""), old, new, 1) }
	chat := event.TypeChatMessage
	all := []oddDispatch{
		{"nothing", create, "", true, "", ""},
		{"not JSON", create, "hello", true, "", ""},
		{"a list", create, "[]", true, "", ""},
		{"a text", create, `"hello"`, true, "", ""},
		{"null", create, "null", false, "", ""},
		{"an empty object", create, "{}", false, "", ""},
		{"half an object", create, messageCreate("")[:100], true, "", ""},
		{"an unknown dispatch", "MESSAGE_SHOUTED", messageCreate(""), false, "", ""},
		{"a dispatch in lower case", "message_create", messageCreate(""), false, "", ""},
		{"no dispatch", "", messageCreate(""), false, "", ""},
		{"an unknown member", create, messageCreate(`,"more":{"a":[1]}`), false, chat, "hello"},
		{"an unknown type of message", create, with(`"type":0`, `"type":99`), false, "", ""},
		{"a type of null", create, with(`"type":0`, `"type":null`), false, chat, "hello"},
		{"a type as a text", create, with(`"type":0`, `"type":"0"`), true, "", ""},
		{"no id", create, with(`"id":"500000000000000001",`, ""), false, "", ""},
		{"an id that is no number", create, with(`"500000000000000001"`, `"abc"`), false, "", ""},
		{"an id as a number", create, with(`"500000000000000001"`, `500`), true, "", ""},
		{"a negative id", create, with(`"500000000000000001"`, `"-5"`), false, "", ""},
		{"a huge id", create, with(`"500000000000000001"`, `"99999999999999999999"`), false, "", ""},
		{"no author", create, with(`"author":{"id":"`+aliceID+`","username":"alice","global_name":"Alice"},`, ""), false, "", ""},
		{"an author of null", create, with(`{"id":"`+aliceID+`","username":"alice","global_name":"Alice"}`, "null"), false, "", ""},
		{"an author without an id", create, with(`"id":"`+aliceID+`",`, ""), false, "", ""},
		{"an author's id that is no number", create, with(aliceID, "alice"), false, "", ""},
		{"no channel", create, with(`"channel_id":"`+roomID+`",`, ""), false, "", ""},
		{"a channel that is no number", create, with(`"channel_id":"`+roomID+`"`, `"channel_id":"general"`), false, "", ""},
		{"an unknown channel", create, with(roomID, "777"), false, chat, "hello"},
		{"an unknown guild", create, with(guildID, "777"), false, chat, "hello"},
		{"no member", create, with(`"member":{"nick":"Al","roles":["11"]},`, ""), false, chat, "hello"},
		{"a member of null", create, with(`{"nick":"Al","roles":["11"]}`, "null"), false, chat, "hello"},
		{"an unknown role", create, with(`["11"]`, `["777","abc",""]`), false, chat, "hello"},
		{"no time", create, with(`"timestamp":"2026-01-02T03:04:05.678000+00:00",`, ""), false, chat, "hello"},
		{"a bad time", create, with("2026-01-02T03:04:05.678000+00:00", "yesterday"), true, "", ""},
		{"no content", create, with(`"content":"hello",`, ""), false, "", ""},
		{"content of null", create, content("null"), false, "", ""},
		{"content as a number", create, content("7"), true, "", ""},
		{"content of spaces", create, content(`" \n\t"`), false, "", ""},
		{"a NUL", create, content(`"a\u0000b"`), false, chat, "a\x00b"},
		{"half an emoji", create, content(`"hi \ud83d"`), false, chat, "hi \ufffd"},
		{"the other half", create, content(`"\ude00 hi"`), false, chat, "\ufffd hi"},
		{"an emoji in escapes", create, content(`"\ud83d\ude00"`), false, chat, "\U0001f600"},
		{"an emoji with a selector", create, content(`"❤️"`), false, chat, "❤️"},
		{"the longest text", create, content(`"` + strings.Repeat("é", 4000) + `"`), false, chat, strings.Repeat("é", 4000)},
		{"a mention without an id", create, content(`"<@> <@!> <@&> <#>"`), false, chat, "<@> <@!> <@&> <#>"},
		{"a mention without an end", create, content(`"<@123"`), false, chat, "<@123"},
		{"a mention of a huge id", create, content(`"<@` + strings.Repeat("1", 30) + `>"`), false, chat, "<@" + strings.Repeat("1", 30) + ">"},
		{"a mention in a mention", create, content(`"<@<@1>>"`), false, chat, "<@@unknown-user>"},
		{"a code without an end", create, content("\"```<@1>\""), false, chat, "```@unknown-user"},
		{"many backquotes", create, content(`"` + strings.Repeat("`", 1000) + `"`), false, chat, strings.Repeat("`", 1000)},
		{"many brackets", create, content(`"` + strings.Repeat("<", 1000) + `"`), false, chat, strings.Repeat("<", 1000)},
		{"a backslash at the end", create, content(`"a\\"`), false, chat, `a\`},
		{"a template", create, content(`"{{ event.user.email }}"`), false, chat, "{{ event.user.email }}"},
		{"mentions of null", create, messageCreate(`,"mentions":null,"mention_roles":null,"attachments":null,"embeds":null`), false, chat, "hello"},
		{"a mention without a user", create, messageCreate(`,"mentions":[{}]`), false, chat, "hello"},
		{"a poll without a question", create, messageCreate(`,"poll":{}`), false, chat, "hello\nPoll: "},
		{"a poll with an answer of nothing", create, messageCreate(`,"poll":{"question":{"text":"Which?"},"answers":[{},{"poll_media":{"emoji":null}}]}`), false, chat, "hello\nPoll: Which?"},
		{"a reply to nothing", create, with(`"type":0`, `"type":19`), false, chat, "hello"},
		{"a reply to null", create, with(`"type":0`, `"type":19,"message_reference":null,"referenced_message":null`), false, chat, "hello"},
		{"a reply to a message without an author", create, with(`"type":0`, `"type":19,"message_reference":{"message_id":"4"},"referenced_message":{}`), false, chat, "hello"},
		{"a forward of nothing", create, messageCreate(`,"message_snapshots":[{}]`), false, chat, "hello\nForwarded: message without text"},
		{"an edit without a time", "MESSAGE_UPDATE", messageCreate(""), false, "", ""},
		{"an edit of an unknown message", "MESSAGE_UPDATE", messageCreate(`,"edited_timestamp":"2026-01-02T03:05:00+00:00"`), false, TypeEdited, ""},
		{"an edit of nothing", "MESSAGE_UPDATE", "{}", false, "", ""},
		{"a deletion of nothing", "MESSAGE_DELETE", "{}", false, "", ""},
		{"a deletion of many, of none", "MESSAGE_DELETE_BULK", `{"ids":[],"channel_id":"` + roomID + `"}`, false, "", ""},
		{"a deletion that is not JSON", "MESSAGE_DELETE", "hello", true, "", ""},
		{"a ban of nobody", "GUILD_BAN_ADD", `{"guild_id":"` + guildID + `"}`, false, "", ""},
		{"a member of no guild", "GUILD_MEMBER_ADD", `{"user":{"id":"` + aliceID + `"}}`, false, TypeJoined, ""},
		{"a member that joined at a bad time", "GUILD_MEMBER_ADD", `{"user":{"id":"` + aliceID + `"},"joined_at":"now"}`, true, "", ""},
	}
	for _, r := range "\u00ad\u034f\u115f\u180e\u200b\u200d\u2060\u2800\u3164\ufe0f\ufeff\U000e0000\U000e0041" {
		all = append(all, oddDispatch{fmt.Sprintf("%U alone", r), create, content(`"` + string(r) + `"`), false, "", ""},
			oddDispatch{fmt.Sprintf("%U behind", r), create, content(`"hi` + string(r) + `"`), false, chat, "hi" + string(r)})
	}
	for _, b := range []string{"\x80", "\xc0\xaf", "\xed\xa0\xbd", "\xff"} {
		all = append(all, oddDispatch{fmt.Sprintf("invalid UTF-8 %+q", b), create, content(`"a` + b + `b"`), false, chat, "a" + strings.Repeat("\ufffd", len(b)) + "b"})
	}
	return all
}

func TestOddInputsInDispatches(t *testing.T) {
	t.Parallel()
	c := newTestConverter(t)
	for _, tt := range oddDispatches() {
		items, err := c.convert(tt.kind, []byte(tt.data))
		if (err != nil) != tt.broken {
			t.Errorf("%s: error %v; want an error: %t", tt.name, err, tt.broken)
			continue
		}
		kind, text := "", ""
		for _, it := range items {
			if it.event == nil {
				continue
			}
			kind = it.event.Type
			if it.event.Message != nil {
				text = it.event.Message.Text
			}
			if wire, err := event.Encode(it.event); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			} else if _, err := event.Decode(wire); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if len(items) > 1 || kind != tt.want || text != tt.text {
			t.Errorf("%s: %d items, %q with the text %+q; want %q with %+q", tt.name, len(items), kind, text, tt.want, tt.text)
		}
	}
}

package discord_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bwmarrin/discordgo"

	"parley.internal/emulator/discord"
)

// Requests as other people's clients send them.

func TestUnknownFieldsAreIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, w.role("mods", discord.ManageNicknames|discord.ManageMessages|discord.BanMembers).ID))
	one, two := w.say(w.viewer.ID, "one"), w.say(w.viewer.ID, "two")
	member := "/guilds/" + w.guild.ID + "/members/" + w.viewer.ID
	for _, tt := range []struct {
		name, method, path string
		body               object
		wrong              string // a known field; with an object as its value the request is refused
	}{
		{"a member", "PATCH", member, object{"nick": "Vee"}, "nick"},
		{"only unknown fields", "PATCH", member, object{}, "roles"},
		{"unchanged fields of a member", "PATCH", member, object{"mute": nil, "deaf": nil, "channel_id": nil, "flags": nil}, "communication_disabled_until"},
		{"a message", "POST", w.messages(), object{"content": "x"}, "content"},
		{"a nested field", "POST", w.messages(), object{"content": "x", "message_reference": object{"message_id": one.ID, "unknown": 1},
			"allowed_mentions": object{"unknown": 1}}, "tts"},
		{"a direct message", "POST", "/users/@me/channels", object{"recipient_id": w.viewer.ID}, "recipient_id"},
		{"a bulk deletion", "POST", w.messages() + "/bulk-delete", object{"messages": []string{one.ID, two.ID}}, "messages"},
		{"a ban", "PUT", "/guilds/" + w.guild.ID + "/bans/" + w.viewer.ID, object{"delete_message_seconds": 0}, "delete_message_seconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			good, bad := tt.body[tt.wrong], object{}
			tt.body[tt.wrong] = bad
			if r := w.call(tt.method, tt.path, tt.body); r.status != 400 || r.code() != 50035 || r.field(tt.wrong) == "" {
				t.Errorf("%s with a wrong type: %d %v", tt.wrong, r.status, r.body)
			}
			if tt.body[tt.wrong] = good; good == nil {
				delete(tt.body, tt.wrong)
			}
			tt.body["unknown"], tt.body["another"] = object{"a": []int{1}}, nil
			if r := w.call(tt.method, tt.path, tt.body); r.status >= 300 {
				t.Errorf("got %d %v", r.status, r.body)
			}
		})
	}
	for _, body := range []string{`[]`, `"x"`, `1`} {
		r := w.call("PATCH", "/guilds/"+w.guild.ID+"/members/"+w.owner.ID, body)
		errors, _ := r.body["errors"].(object)
		if r.status != 400 || r.code() != 50035 || errors["_errors"] == nil {
			t.Errorf("the body %s: %d %v", body, r.status, r.body)
		}
	}
}

// Discord accepts snowflakes as numbers. discord.py sends numbers.
func TestIDsMayBeNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	low := w.role("low", 0)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, w.role("mods", discord.ManageRoles|discord.ManageMessages).ID))
	one, two := w.say(w.viewer.ID, "one"), w.say(w.viewer.ID, "two")
	for _, tt := range []struct{ name, method, path, body string }{
		{"roles", "PATCH", "/guilds/" + w.guild.ID + "/members/" + w.viewer.ID, `{"roles": [` + low.ID + `]}`},
		{"a reply", "POST", w.messages(), `{"content": "x", "message_reference": {"type": 0, "message_id": ` + one.ID +
			`, "channel_id": ` + w.channel.ID + `, "guild_id": ` + w.guild.ID + `}}`},
		{"mentions", "POST", w.messages(), `{"content": "<@` + w.viewer.ID + `>", "allowed_mentions": {"users": [` + w.viewer.ID + `], "roles": [` + low.ID + `]}}`},
		{"a direct message", "POST", "/users/@me/channels", `{"recipient_id": ` + w.viewer.ID + `}`},
		{"a bulk deletion", "POST", w.messages() + "/bulk-delete", `{"messages": [` + one.ID + `, ` + two.ID + `]}`},
	} {
		if r := w.call(tt.method, tt.path, tt.body); r.status >= 300 {
			t.Errorf("%s: %d %v", tt.name, r.status, r.body)
		}
	}
	for _, m := range w.Members(w.guild.ID) {
		if m.User.ID == w.viewer.ID && (len(m.Roles) != 1 || m.Roles[0] != low.ID) {
			t.Errorf("the viewer's roles are %v", m.Roles)
		}
	}
	said := w.Said(w.channel.ID)
	if !said[0].Deleted || !said[1].Deleted || said[2].ReplyTo != one.ID || len(said[3].Pings) != 1 {
		t.Errorf("the messages are %+v", said)
	}
}

func TestDiscordgoRequestsGuildMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.connect(allIntents)
	chunks := make(chan *discordgo.GuildMembersChunk, 10)
	c.AddHandler(func(_ *discordgo.Session, chunk *discordgo.GuildMembersChunk) { chunks <- chunk })
	w.must(c.RequestGuildMembers(w.guild.ID, "view", 10, "n1", false))
	if got := next(t, chunks); got.Nonce != "n1" || len(got.Members) != 1 || got.Members[0].User.ID != w.viewer.ID {
		t.Errorf("the members with a name prefix are %+v", got)
	}
	w.must(c.RequestGuildMembersList(w.guild.ID, []string{w.owner.ID, "1"}, 0, "n2", false))
	if got := next(t, chunks); got.Nonce != "n2" || len(got.Members) != 1 || len(got.NotFound) != 1 {
		t.Errorf("the members by id are %+v", got)
	}
}

func TestFormsOfMemberRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	for _, tt := range []struct {
		name, data string
		members    int // -1: the connection is closed
	}{
		{"a guild as text", `{"guild_id": "GUILD", "query": "", "limit": 0}`, 3},
		{"a guild as a number", `{"guild_id": GUILD, "query": "", "limit": 0}`, 3},
		{"a guild in an array", `{"guild_id": ["GUILD"], "query": "", "limit": 0}`, 3},
		{"a guild as a number in an array", `{"guild_id": [GUILD], "query": "", "limit": 0}`, 3},
		{"a user as text", `{"guild_id": "GUILD", "user_ids": "USER"}`, 1},
		{"a user as a number", `{"guild_id": "GUILD", "user_ids": USER}`, 1},
		{"users as numbers", `{"guild_id": "GUILD", "user_ids": [USER, 1]}`, 1},
		{"no users", `{"guild_id": "GUILD", "user_ids": []}`, 0},
		{"null users", `{"guild_id": "GUILD", "user_ids": null, "query": "view", "limit": 5}`, 1},
		{"unknown fields", `{"guild_id": "GUILD", "query": "", "limit": 0, "unknown": {}}`, 3},
		{"a nonce that is no text", `{"guild_id": "GUILD", "query": "", "limit": 0, "nonce": 5}`, 3},
		{"a nonce of 33 bytes", `{"guild_id": "GUILD", "query": "", "limit": 0, "nonce": "` + strings.Repeat("n", 33) + `"}`, 3},
		{"two guilds", `{"guild_id": ["GUILD", "1"], "query": "", "limit": 0}`, -1},
		{"no guild", `{"query": "", "limit": 0}`, -1},
		{"a guild of another type", `{"guild_id": {}, "query": "", "limit": 0}`, -1},
		{"neither query nor users", `{"guild_id": "GUILD", "limit": 0}`, -1},
		{"a query of another type", `{"guild_id": "GUILD", "query": 1, "limit": 0}`, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := w.identified(discord.IntentGuildMembers)
			defer c.CloseNow()
			c.t = t
			c.write(`{"op": 8, "d": ` + strings.NewReplacer("GUILD", w.guild.ID, "USER", w.viewer.ID).Replace(tt.data) + `}`)
			if tt.members < 0 {
				if code := c.closed(); code != discord.CloseDecodeError {
					t.Errorf("close code %d", code)
				}
				return
			}
			var chunk map[string]any
			if err := json.Unmarshal(c.event("GUILD_MEMBERS_CHUNK").Data, &chunk); err != nil {
				t.Fatal(err)
			}
			if members := chunk["members"].([]any); len(members) != tt.members || chunk["nonce"] != nil {
				t.Errorf("the answer is %v", chunk)
			}
		})
	}
}

func TestMembersComeInChunks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	for i := range 1000 {
		w.join(w.user(fmt.Sprint("member", i)).ID)
	}
	c, _ := w.identified(discord.IntentGuildMembers)
	type chunk struct {
		Members      []json.RawMessage
		Index, Count int
	}
	read := func() chunk {
		t.Helper()
		var got struct {
			Members []json.RawMessage `json:"members"`
			Index   int               `json:"chunk_index"`
			Count   int               `json:"chunk_count"`
		}
		w.must(json.Unmarshal(c.event("GUILD_MEMBERS_CHUNK").Data, &got))
		return chunk(got)
	}
	c.send(8, object{"guild_id": w.guild.ID, "query": "", "limit": 0})
	for i, want := range []int{1000, 3} {
		if got := read(); len(got.Members) != want || got.Index != i || got.Count != 2 {
			t.Errorf("chunk %d of %d has %d members; want %d", got.Index, got.Count, len(got.Members), want)
		}
	}
	c.send(8, object{"guild_id": w.guild.ID, "query": "member", "limit": 500})
	if got := read(); len(got.Members) != 100 || got.Count != 1 {
		t.Errorf("%d members with a name prefix; want 100", len(got.Members))
	}
}

package discord_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/emulator/discord"
)

func (w *world) messages() string { return "/channels/" + w.channel.ID + "/messages" }

func TestRequestsNeedAVersionATokenAndARoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	bot := "Bot " + w.bot.Token
	for _, tt := range []struct {
		method, path, authorization string
		status, code                int
		message                     string
	}{
		{"GET", "/v10/users/@me", bot, 200, 0, ""},
		{"GET", "/v9/users/@me", bot, 200, 0, ""},
		{"GET", "/v10/gateway", "", 200, 0, ""},
		{"GET", "/v6/users/@me", bot, 400, 50041, "Invalid API version"},
		{"GET", "/v10/users/@me", "", 401, 0, "401: Unauthorized"},
		{"GET", "/v10/users/@me", w.bot.Token, 401, 0, "401: Unauthorized"},
		{"GET", "/v10/users/@me", "Bot nobody", 401, 0, "401: Unauthorized"},
		{"GET", "/v10/nothing", bot, 404, 0, "404: Not Found"},
		{"PUT", "/v10/users/@me", bot, 405, 0, "405: Method Not Allowed"},
		{"GET", "/v10/channels/1", bot, 404, 10003, "Unknown Channel"},
		{"GET", "/v10/channels/x", bot, 400, 50035, "Invalid Form Body"},
		{"GET", "/v10/guilds/1", bot, 404, 10004, "Unknown Guild"},
		{"GET", "/v10/users/1", bot, 404, 10013, "Unknown User"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			r := w.callWith(tt.method, tt.path, tt.authorization, nil, nil)
			message, _ := r.body["message"].(string)
			if r.status != tt.status || r.code() != tt.code || message != tt.message {
				t.Errorf("got %d %v", r.status, r.body)
			}
		})
	}
	if got := w.Requests("/nothing"); len(got) != 1 || got[0].Status != 404 {
		t.Errorf("the requests are %v", got)
	}
}

func TestInvalidMessagesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	asked := w.say(w.viewer.ID, "?")
	other, err := w.AddChannel(discord.Channel{GuildID: w.guild.ID, Name: "other"})
	w.must(err)
	for name, tt := range map[string]struct {
		body         any
		status, code int
		field, why   string
	}{
		"2000 characters":          {object{"content": strings.Repeat("é", 2000)}, 200, 0, "", ""},
		"2001 characters":          {object{"content": strings.Repeat("é", 2001)}, 400, 50035, "content", "BASE_TYPE_MAX_LENGTH"},
		"empty":                    {object{}, 400, 50006, "", ""},
		"spaces":                   {object{"content": " \n"}, 400, 50006, "", ""},
		"no JSON":                  {"{", 400, 50109, "", ""},
		"another type":             {object{"content": 1}, 400, 50035, "content", "BASE_TYPE_BAD_TYPE"},
		"a nonce of 25":            {object{"content": "x", "nonce": strings.Repeat("n", 25)}, 200, 0, "", ""},
		"a nonce of 26":            {object{"content": "x", "nonce": strings.Repeat("n", 26)}, 400, 50035, "nonce", "BASE_TYPE_MAX_LENGTH"},
		"a nonce that is a number": {object{"content": "x", "nonce": 12345}, 200, 0, "", ""},
		"an embed":                 {object{"content": "x", "embeds": []any{object{}}}, 400, 50035, "embeds", "NOT_SERVED"},
		"what is null":             {object{"content": "x", "embeds": nil, "components": nil, "sticker_ids": nil, "message_reference": nil, "allowed_mentions": nil}, 200, 0, "", ""},
		"an answer":                {object{"content": "x", "message_reference": object{"message_id": asked.ID}}, 200, 0, "", ""},
		"an answer to nothing":     {object{"content": "x", "message_reference": object{"message_id": "1"}}, 400, 50035, "message_reference", "REPLIES_UNKNOWN_MESSAGE"},
		"an answer that may fail":  {object{"content": "x", "message_reference": object{"message_id": "1", "fail_if_not_exists": false}}, 200, 0, "", ""},
		"an answer elsewhere":      {object{"content": "x", "message_reference": object{"message_id": asked.ID, "channel_id": other.ID}}, 400, 50035, "message_reference", "REPLIES_CANNOT_REFERENCE_OTHER_CHANNEL"},
		"a mention of what is not": {object{"content": "x", "allowed_mentions": object{"parse": []string{"users", "cats"}}}, 400, 50035, "allowed_mentions.parse.1", "BASE_TYPE_CHOICES"},
		"mentions both ways":       {object{"content": "x", "allowed_mentions": object{"parse": []string{"users"}, "users": []string{"1"}}}, 400, 50035, "allowed_mentions", "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE"},
		"too many mentions":        {object{"content": "x", "allowed_mentions": object{"users": slices.Repeat([]string{"1"}, 101)}}, 400, 50035, "allowed_mentions.users", "BASE_TYPE_BAD_LENGTH"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(w.Said(w.channel.ID))
			r := w.call("POST", w.messages(), tt.body)
			if r.status != tt.status || r.code() != tt.code && tt.status != 200 {
				t.Fatalf("got %d %v", r.status, r.body)
			}
			if tt.field != "" && r.field(tt.field) != tt.why {
				t.Errorf("the errors are %v, without %s of %s", r.body["errors"], tt.why, tt.field)
			}
			if said := len(w.Said(w.channel.ID)) - before; (said == 1) != (tt.status == 200) {
				t.Errorf("%d messages were posted", said)
			}
		})
	}
	// A body without a Content-Type is not decoded.
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.APIURL()+"/v10"+w.messages(), strings.NewReader(`{"content":"x"}`))
	w.must(err)
	req.Header.Set("Authorization", "Bot "+w.bot.Token)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("status %d without a Content-Type", resp.StatusCode)
	}
}

func TestEnforcedNonceMakesOneMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	send := func(text string, enforce bool) string {
		t.Helper()
		r := w.call("POST", w.messages(), object{"content": text, "nonce": "n1", "enforce_nonce": enforce})
		if r.status != 200 || r.body["nonce"] != "n1" {
			t.Fatalf("got %d %v", r.status, r.body)
		}
		return r.body["id"].(string)
	}
	first := send("once", true)
	if again := send("once", true); again != first {
		t.Errorf("the second message is %s; want %s", again, first)
	}
	if loose := send("once", false); loose == first {
		t.Error("no new message without enforce_nonce")
	}
	w.clock.Advance(time.Hour)
	before := len(w.Said(w.channel.ID))
	send("once", true)
	if n := len(w.Said(w.channel.ID)) - before; n != 1 {
		t.Errorf("%d messages after a repetition an hour later", n)
	}
}

func TestNonceReturnsTheMessageAfterALostResponse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	body := object{"content": "hello", "nonce": "n1", "enforce_nonce": true}
	w.FailHTTP(discord.HTTPFault{Method: "POST", Path: "/messages", Done: true, Drop: true})
	if _, err := w.try("POST", "/v10"+w.messages(), "Bot "+w.bot.Token, nil, body); err == nil {
		t.Fatal("the lost response arrived")
	}
	if r := w.call("POST", w.messages(), body); r.status != 200 || r.body["id"] != w.last().ID {
		t.Errorf("got %d %v", r.status, r.body)
	}
	if n := len(w.Said(w.channel.ID)); n != 1 {
		t.Errorf("%d messages were posted", n)
	}
}

func TestPagesOfMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.client()
	var ids []string
	for i := range 250 {
		if i == 125 {
			w.clock.Advance(time.Minute)
		}
		ids = append(ids, w.say(w.viewer.ID, fmt.Sprint(i)).ID)
	}
	w.must(w.Delete(w.channel.ID, ids[7]))
	page := func(limit int, before, after, around string) string {
		t.Helper()
		list, err := c.ChannelMessages(w.channel.ID, limit, before, after, around)
		w.must(err)
		if len(list) == 0 {
			return "nothing"
		}
		return fmt.Sprintf("%d: %s to %s", len(list), list[0].Content, list[len(list)-1].Content)
	}
	later := w.last().At.Add(-time.Second)
	for _, tt := range []struct {
		name                  string
		limit                 int
		before, after, around string
		want                  string
	}{
		{"the newest", 0, "", "", "", "50: 249 to 200"},
		{"at most", 100, "", "", "", "100: 249 to 150"},
		{"before one", 3, ids[100], "", "", "3: 99 to 97"},
		{"before the first", 3, ids[0], "", "", "nothing"},
		{"the oldest after one", 3, "", ids[5], "", "3: 9 to 6"},
		{"after one that is deleted", 2, "", ids[7], "", "2: 9 to 8"},
		{"after the beginning", 2, "", "0", "", "2: 1 to 0"},
		{"after a time", 2, "", discord.IDAt(later), "", "2: 126 to 125"},
		{"after the last", 2, "", ids[249], "", "nothing"},
		{"around one", 5, "", "", ids[100], "5: 102 to 98"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := page(tt.limit, tt.before, tt.after, tt.around); got != tt.want {
				t.Errorf("got %s; want %s", got, tt.want)
			}
		})
	}
	// The pages by after together have every message.
	seen, at := 0, "0"
	for {
		list, err := c.ChannelMessages(w.channel.ID, 100, "", at, "")
		w.must(err)
		if len(list) == 0 {
			break
		}
		seen, at = seen+len(list), list[0].ID
	}
	if seen != 249 {
		t.Errorf("the pages together have %d messages", seen)
	}
	for query, field := range map[string]string{
		"limit=101": "limit", "limit=0": "limit", "limit=x": "limit", "after=x": "after", "before=1&after=2": "after",
	} {
		if r := w.call("GET", w.messages()+"?"+query, nil); r.status != 400 || r.field(field) == "" {
			t.Errorf("%s: %d %v", query, r.status, r.body)
		}
	}
}

func TestEditAndDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.client()
	own, err := c.ChannelMessageSend(w.channel.ID, "one")
	w.must(err)
	theirs := w.say(w.viewer.ID, "theirs")
	edited, err := c.ChannelMessageEdit(w.channel.ID, own.ID, "two")
	w.must(err)
	if edited.Content != "two" || edited.EditedTimestamp == nil || w.Said(w.channel.ID)[0].Text != "two" {
		t.Errorf("the edited message is %+v", edited)
	}
	path := w.messages() + "/"
	if r := w.call("PATCH", path+theirs.ID, object{"content": "x"}); r.status != 403 || r.code() != 50005 {
		t.Errorf("the edit of another user's message: %d %v", r.status, r.body)
	}
	if r := w.call("DELETE", path+theirs.ID, nil); r.status != 403 || r.code() != 50013 {
		t.Errorf("the deletion of another user's message: %d %v", r.status, r.body)
	}
	w.must(c.ChannelMessageDelete(w.channel.ID, own.ID))
	if r := w.call("GET", path+own.ID, nil); r.status != 404 || r.code() != 10008 {
		t.Errorf("a request for the deleted message: %d %v", r.status, r.body)
	}
	mods := w.role("mods", discord.ManageMessages)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	w.must(c.ChannelMessageDelete(w.channel.ID, theirs.ID, discordgo.WithAuditLogReason("off%20topic")))
	log := w.AuditLog(w.guild.ID)
	if len(log) != 1 || log[0].Action != discord.ActionMessageDelete || log[0].TargetID != w.viewer.ID || log[0].Reason != "off topic" {
		t.Errorf("the audit log has %+v", log)
	}
	a, b := w.say(w.viewer.ID, "a"), w.say(w.viewer.ID, "b")
	w.must(c.ChannelMessagesBulkDelete(w.channel.ID, []string{a.ID, b.ID}))
	for _, m := range w.Said(w.channel.ID) {
		if !m.Deleted {
			t.Errorf("the message %q is not deleted", m.Text)
		}
	}
	old := w.say(w.viewer.ID, "old")
	w.clock.Advance(15 * 24 * time.Hour)
	if r := w.call("POST", path+"bulk-delete", object{"messages": []string{old.ID, w.say(w.viewer.ID, "new").ID}}); r.code() != 50034 {
		t.Errorf("bulk deletion of an old message: %d %v", r.status, r.body)
	}
	if r := w.call("POST", path+"bulk-delete", object{"messages": []string{old.ID}}); r.code() != 50016 {
		t.Errorf("bulk deletion of one message: %d %v", r.status, r.body)
	}
}

func TestMentions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	open := w.role("open", 0)
	open.Mentionable = true
	open, err := w.AddRole(open)
	w.must(err)
	shut := w.role("shut", 0)
	w.must(w.SetRoles(w.guild.ID, w.viewer.ID, open.ID, shut.ID))
	hidden := w.user("hidden")
	everyone, err := w.AddRole(discord.Role{ID: w.guild.ID, GuildID: w.guild.ID, Name: "@everyone", Permissions: discord.DefaultPermissions &^ discord.MentionEveryone})
	w.must(err)
	asked := w.say(w.viewer.ID, "?")
	viewer, owner := "<@"+w.viewer.ID+">", "<@!"+w.owner.ID+">"
	none := object{"parse": []string{}}
	for name, tt := range map[string]struct {
		text     string
		allowed  object
		answers  bool
		everyone bool // the bot has the permission to mention everyone
		mentions []string
		roles    []string
		all      bool
		pings    []string
	}{
		"a user":                           {text: viewer, mentions: []string{w.viewer.ID}, pings: []string{w.viewer.ID}},
		"two users":                        {text: viewer + owner + viewer, mentions: []string{w.viewer.ID, w.owner.ID}, pings: []string{w.owner.ID, w.viewer.ID}},
		"no mention allowed":               {text: viewer + "@everyone <@&" + open.ID + ">", allowed: none, everyone: true},
		"one of two allowed":               {text: viewer + owner, allowed: object{"users": []string{w.owner.ID}}, mentions: []string{w.owner.ID}, pings: []string{w.owner.ID}},
		"one allowed who is not mentioned": {text: "hello", allowed: object{"users": []string{w.owner.ID}}},
		"a user of another guild":          {text: "<@" + hidden.ID + ">", mentions: []string{hidden.ID}},
		"a role":                           {text: "<@&" + open.ID + ">", roles: []string{open.ID}, pings: []string{w.viewer.ID}},
		"a role that is not mentionable":   {text: "<@&" + shut.ID + ">"},
		"such a role with permission":      {text: "<@&" + shut.ID + ">", everyone: true, roles: []string{shut.ID}, pings: []string{w.viewer.ID}},
		"a role that is not allowed":       {text: "<@&" + open.ID + ">", allowed: object{"parse": []string{"users"}}},
		"everyone without permission":      {text: "@everyone"},
		"everyone":                         {text: "@everyone", everyone: true, all: true, pings: []string{w.owner.ID, w.viewer.ID}},
		"here":                             {text: "@here", everyone: true, all: true, pings: []string{w.owner.ID, w.viewer.ID}},
		"an answer":                        {text: "yes", answers: true, mentions: []string{w.viewer.ID}, pings: []string{w.viewer.ID}},
		"an answer without pings":          {text: "yes", answers: true, allowed: none},
		"an answer that pings":             {text: "yes", answers: true, allowed: object{"parse": []string{}, "replied_user": true}, mentions: []string{w.viewer.ID}, pings: []string{w.viewer.ID}},
		"itself":                           {text: "<@" + w.bot.ID + ">", mentions: []string{w.bot.ID}},
	} {
		t.Run(name, func(t *testing.T) {
			everyone.Permissions &^= discord.MentionEveryone
			if tt.everyone {
				everyone.Permissions |= discord.MentionEveryone
			}
			_, err := w.AddRole(everyone)
			w.must(err)
			form := object{"content": tt.text}
			if tt.allowed != nil {
				form["allowed_mentions"] = tt.allowed
			}
			if tt.answers {
				form["message_reference"] = object{"message_id": asked.ID}
			}
			r := w.call("POST", w.messages(), form)
			m := w.last()
			if r.status != 200 || !slices.Equal(m.Mentions, tt.mentions) || !slices.Equal(m.MentionRoles, tt.roles) ||
				m.MentionEveryone != tt.all || !slices.Equal(m.Pings, tt.pings) {
				t.Errorf("got %d, users %v, roles %v, everyone %v, pings %v", r.status, m.Mentions, m.MentionRoles, m.MentionEveryone, m.Pings)
			}
			if r.body["mention_everyone"] != tt.all || len(r.body["mentions"].([]any)) != len(tt.mentions) {
				t.Errorf("the API shows %v and %v", r.body["mentions"], r.body["mention_everyone"])
			}
		})
	}
}

func TestPermissionsInAChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	set := func(o ...discord.Overwrite) {
		t.Helper()
		c := w.channel
		c.Overwrites = o
		_, err := w.AddChannel(c)
		w.must(err)
	}
	posts := func(status, code int) {
		t.Helper()
		if r := w.call("POST", w.messages(), object{"content": "x"}); r.status != status || status != 200 && r.code() != code {
			t.Errorf("a message: %d %v; want %d %d", r.status, r.body, status, code)
		}
	}
	w.say(w.viewer.ID, "history")
	posts(200, 0)
	set(discord.Overwrite{ID: w.guild.ID, Deny: discord.SendMessages})
	posts(403, 50013)
	set(discord.Overwrite{ID: w.guild.ID, Deny: discord.SendMessages}, discord.Overwrite{ID: w.bot.ID, Allow: discord.SendMessages})
	posts(200, 0)
	set(discord.Overwrite{ID: w.guild.ID, Deny: discord.ViewChannel})
	posts(403, 50001)
	if r := w.call("GET", w.messages(), nil); r.status != 403 || r.code() != 50001 {
		t.Errorf("the messages of the channel: %d %v", r.status, r.body)
	}
	set(discord.Overwrite{ID: w.guild.ID, Deny: discord.ReadMessageHistory})
	if r := w.call("GET", w.messages(), nil); r.status != 200 || len(r.list) != 0 {
		t.Errorf("the messages without the history permission: %d %v", r.status, r.list)
	}
	if r := w.call("POST", w.messages(), object{"content": "x", "message_reference": object{"message_id": w.last().ID}}); r.code() != 160002 {
		t.Errorf("a reply without the history permission: %d %v", r.status, r.body)
	}
	set()
	w.must(w.TimeOut(w.guild.ID, w.bot.ID, time.Minute))
	posts(403, 50013)
	w.clock.Advance(2 * time.Minute)
	posts(200, 0)
	w.must(w.RemoveMember(w.guild.ID, w.bot.ID))
	posts(403, 50001)
}

func TestHierarchyOfModeration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	low := w.role("low", 0)
	mods := w.role("mods", discord.BanMembers|discord.ModerateMembers|discord.KickMembers)
	high := w.role("high", 0)
	admin, err := w.AddRole(discord.Role{GuildID: w.guild.ID, Name: "admin", Position: 1, Permissions: discord.Administrator})
	w.must(err)
	below, equal, above, boss := w.user("below"), w.user("equal"), w.user("above"), w.user("boss")
	w.join(below.ID, low.ID)
	w.join(equal.ID, mods.ID)
	w.join(above.ID, high.ID)
	w.join(boss.ID, admin.ID)
	until := w.clock.Now().Add(time.Hour).Format(time.RFC3339)
	member := "/guilds/" + w.guild.ID + "/members/"
	timeOut := func(u discord.User) reply {
		return w.call("PATCH", member+u.ID, object{"communication_disabled_until": until})
	}
	if r := timeOut(below); r.status != 403 || r.code() != 50013 {
		t.Errorf("without the permission: %d %v", r.status, r.body)
	}
	if r := w.call("PUT", "/guilds/"+w.guild.ID+"/bans/"+below.ID, object{}); r.status != 403 || r.code() != 50013 {
		t.Errorf("without the permission: %d %v", r.status, r.body)
	}
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	for _, u := range []discord.User{equal, above, w.owner} {
		for what, r := range map[string]reply{
			"a time-out": timeOut(u),
			"a ban":      w.call("PUT", "/guilds/"+w.guild.ID+"/bans/"+u.ID, object{}),
			"a kick":     w.call("DELETE", member+u.ID, nil),
		} {
			if r.status != 403 || r.code() != 50013 {
				t.Errorf("%s of %s: %d %v", what, u.Name, r.status, r.body)
			}
		}
	}
	if r := timeOut(boss); r.status != 403 {
		t.Errorf("a time-out of an administrator: %d", r.status)
	}
	if r := timeOut(below); r.status != 200 {
		t.Errorf("a time-out: %d %v", r.status, r.body)
	}
	if r := timeOut(w.viewer); r.status != 200 {
		t.Errorf("a time-out of a member without a role: %d %v", r.status, r.body)
	}
}

func TestBansAndTimeOuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	mods := w.role("mods", discord.BanMembers|discord.ModerateMembers)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	c := w.client()
	until := w.clock.Now().Add(10 * time.Minute)
	w.must(c.GuildMemberTimeout(w.guild.ID, w.viewer.ID, &until, discordgo.WithAuditLogReason("calm down")))
	if got := w.TimeOuts(w.guild.ID); len(got) != 1 || got[0].User.ID != w.viewer.ID || !got[0].Until.Equal(until) {
		t.Errorf("the time-outs are %+v", got)
	}
	w.must(c.GuildMemberTimeout(w.guild.ID, w.viewer.ID, nil))
	if got := w.TimeOuts(w.guild.ID); len(got) != 0 {
		t.Errorf("time-outs after the end of the time-out: %+v", got)
	}
	for name, tt := range map[string]struct {
		until  any
		status int
	}{
		"28 days":   {w.clock.Now().Add(28 * 24 * time.Hour), 200},
		"29 days":   {w.clock.Now().Add(29 * 24 * time.Hour), 400},
		"no time":   {"soon", 400},
		"no string": {5, 400},
		"null":      {nil, 200},
	} {
		r := w.call("PATCH", "/guilds/"+w.guild.ID+"/members/"+w.viewer.ID, object{"communication_disabled_until": tt.until})
		if r.status != tt.status || tt.status == 400 && r.field("communication_disabled_until") == "" {
			t.Errorf("%s: %d %v", name, r.status, r.body)
		}
	}

	old := w.say(w.viewer.ID, "old")
	w.clock.Advance(time.Hour)
	recent := w.say(w.viewer.ID, "recent")
	ban := "/guilds/" + w.guild.ID + "/bans/" + w.viewer.ID
	if r := w.call("PUT", ban, object{"delete_message_seconds": 604801}); r.status != 400 || r.field("delete_message_seconds") == "" {
		t.Errorf("a deletion of more than 7 days: %d %v", r.status, r.body)
	}
	header := http.Header{"X-Audit-Log-Reason": {"spam"}}
	if r := w.callWith("PUT", "/v10"+ban, "Bot "+w.bot.Token, header, object{"delete_message_seconds": 60}); r.status != 204 {
		t.Errorf("a ban: %d %v", r.status, r.body)
	}
	bans := w.Bans(w.guild.ID)
	if len(bans) != 1 || bans[0].User.ID != w.viewer.ID || bans[0].Reason != "spam" || bans[0].ByID != w.bot.ID {
		t.Errorf("the bans are %+v", bans)
	}
	for _, m := range w.Said(w.channel.ID) {
		if m.Deleted != (m.ID == recent.ID) {
			t.Errorf("%q is deleted: %v", m.Text, m.Deleted)
		}
	}
	if _, err := w.AddMember(w.guild.ID, w.viewer.ID); err == nil {
		t.Error("a banned user became a member")
	}
	if r := w.call("PUT", ban, object{}); r.status != 204 || len(w.Bans(w.guild.ID)) != 1 {
		t.Errorf("a second ban: %d", r.status)
	}
	got, err := c.GuildBan(w.guild.ID, w.viewer.ID)
	w.must(err)
	if got.Reason != "spam" || got.User.ID != w.viewer.ID {
		t.Errorf("the API shows %+v", got)
	}
	w.must(c.GuildBanDelete(w.guild.ID, w.viewer.ID))
	if r := w.call("DELETE", ban, nil); r.status != 404 || r.code() != 10026 {
		t.Errorf("a second unban: %d %v", r.status, r.body)
	}
	w.must(c.GuildBanCreateWithReason(w.guild.ID, w.viewer.ID, "again", 7))
	if bans := w.Bans(w.guild.ID); len(bans) != 1 || bans[0].Reason != "again" {
		t.Errorf("bans returned by discordgo: %+v", bans)
	}
	if all := w.Said(w.channel.ID); !all[0].Deleted || all[0].ID != old.ID {
		t.Error("a ban with 7 days did not delete a message from an hour ago")
	}
}

func TestAPIChangesRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	low := w.role("low", 0)
	mods := w.role("mods", discord.ManageRoles|discord.ManageNicknames)
	high := w.role("high", 0)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	c := w.client()
	w.must(c.GuildMemberRoleAdd(w.guild.ID, w.viewer.ID, low.ID))
	m, err := c.GuildMember(w.guild.ID, w.viewer.ID)
	w.must(err)
	if !slices.Equal(m.Roles, []string{low.ID}) {
		t.Errorf("the roles are %v", m.Roles)
	}
	for _, role := range []string{mods.ID, high.ID} {
		if err := c.GuildMemberRoleAdd(w.guild.ID, w.viewer.ID, role); err == nil {
			t.Error("the bot added a role that is not below its own")
		}
	}
	w.must(c.GuildMemberNickname(w.guild.ID, w.viewer.ID, "Vee"))
	w.must(c.GuildMemberRoleRemove(w.guild.ID, w.viewer.ID, low.ID))
	for _, m := range w.Members(w.guild.ID) {
		if m.User.ID == w.viewer.ID && (m.Nick != "Vee" || len(m.Roles) != 0) {
			t.Errorf("the viewer is %+v", m)
		}
	}
	roles, err := c.GuildRoles(w.guild.ID)
	w.must(err)
	var names []string
	for _, r := range roles {
		names = append(names, r.Name)
	}
	if want := []string{"high", "mods", "low", "@everyone"}; !slices.Equal(names, want) {
		t.Errorf("the roles are %v, not %v", names, want)
	}
	members, err := c.GuildMembers(w.guild.ID, "", 1000)
	w.must(err)
	channels, err := c.GuildChannels(w.guild.ID)
	w.must(err)
	g, err := c.Guild(w.guild.ID)
	w.must(err)
	if len(members) != 3 || len(channels) != 1 || g.OwnerID != w.owner.ID {
		t.Errorf("the guild has %d members and %d channels, and the owner %s", len(members), len(channels), g.OwnerID)
	}
}

func TestDirectMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.connect(allIntents)
	_, err := w.SayDM(w.viewer.ID, w.bot.ID, "psst")
	w.must(err)
	got := next(t, c.created)
	if got.Content != "psst" || got.GuildID != "" || got.Member != nil {
		t.Errorf("got %+v", got.Message)
	}
	dm, err := c.UserChannelCreate(w.viewer.ID)
	w.must(err)
	if dm.ID != got.ChannelID || dm.Type != discordgo.ChannelTypeDM || len(dm.Recipients) != 1 || dm.Recipients[0].ID != w.viewer.ID {
		t.Errorf("the channel is %+v", dm)
	}
	if _, err := c.ChannelMessageSend(dm.ID, "yes?"); err != nil {
		t.Error(err)
	}
	all := w.DMs(w.viewer.ID, w.bot.ID)
	if len(all) != 2 || all[1].Text != "yes?" || all[1].Author.ID != w.bot.ID || all[1].GuildID != "" {
		t.Errorf("the direct messages are %+v", all)
	}
	send := func(to string) reply {
		t.Helper()
		r := w.call("POST", "/users/@me/channels", object{"recipient_id": to})
		if r.status != 200 {
			return r
		}
		return w.call("POST", "/channels/"+r.body["id"].(string)+"/messages", object{"content": "hello"})
	}
	w.must(w.BlockDM(w.viewer.ID, true))
	if r := send(w.viewer.ID); r.status != 403 || r.code() != 50007 {
		t.Errorf("a message to a user who blocks the bot: %d %v", r.status, r.body)
	}
	w.must(w.BlockDM(w.viewer.ID, false))
	if r := send(w.viewer.ID); r.status != 200 {
		t.Errorf("a message to a user who no longer blocks the bot: %d %v", r.status, r.body)
	}
	if r := send(w.user("stranger").ID); r.status != 403 || r.code() != 50278 {
		t.Errorf("a message to a user without a shared guild: %d %v", r.status, r.body)
	}
	for _, to := range []string{"1", w.bot.ID} {
		if r := send(to); r.status != 400 || r.code() != 50033 {
			t.Errorf("%s: %d %v", to, r.status, r.body)
		}
	}
	// A second bot cannot see the channel.
	other, err := w.AddBot(discord.Bot{User: discord.User{Name: "other"}})
	w.must(err)
	if r := w.callWith("GET", "/v10/channels/"+dm.ID, "Bot "+other.Token, nil, nil); r.status != 404 || r.code() != 10003 {
		t.Errorf("a message to another bot: %d %v", r.status, r.body)
	}
}

func TestRouteRateLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, err := w.AddChannel(discord.Channel{GuildID: w.guild.ID, Name: "other"})
	w.must(err)
	var bucket string
	for i := range 5 {
		r := w.call("POST", w.messages(), object{"content": "x"})
		if r.status != 200 || r.header.Get("X-RateLimit-Limit") != "5" || r.header.Get("X-RateLimit-Remaining") != fmt.Sprint(4-i) {
			t.Fatalf("message %d: %d %v", i, r.status, r.header)
		}
		bucket = r.header.Get("X-RateLimit-Bucket")
	}
	w.clock.Advance(2500 * time.Millisecond)
	r := w.call("POST", w.messages(), object{"content": "x"})
	if r.status != 429 || r.body["retry_after"] != 2.5 || r.body["global"] != false || r.header.Get("Retry-After") != "3" ||
		r.header.Get("X-RateLimit-Reset-After") != "2.500" || r.header.Get("X-RateLimit-Scope") != "user" || r.header.Get("X-RateLimit-Bucket") != bucket {
		t.Errorf("a message above the limit: %d %v %v", r.status, r.body, r.header)
	}
	if r := w.call("POST", "/channels/"+other.ID+"/messages", object{"content": "x"}); r.status != 200 {
		t.Errorf("a message in another channel: %d", r.status)
	}
	w.clock.Advance(2500 * time.Millisecond)
	if r := w.call("POST", w.messages(), object{"content": "x"}); r.status != 200 {
		t.Errorf("a message after the reset: %d", r.status)
	}
}

func TestGlobalRateLimit(t *testing.T) {
	t.Parallel()
	limits := discord.DefaultLimits()
	limits.Routes = discord.Window{}
	w := newWorld(t, discord.WithLimits(limits))
	for i := range 50 {
		if r := w.call("GET", "/users/@me", nil); r.status != 200 {
			t.Fatalf("request %d: %d", i, r.status)
		}
	}
	r := w.call("GET", "/users/@me", nil)
	if r.status != 429 || r.body["global"] != true || r.header.Get("X-RateLimit-Global") != "true" || r.header.Get("X-RateLimit-Scope") != "global" {
		t.Errorf("a request above the limit: %d %v", r.status, r.body)
	}
	w.clock.Advance(time.Second)
	if r := w.call("GET", "/users/@me", nil); r.status != 200 {
		t.Errorf("a request a second later: %d", r.status)
	}
}

func TestDiscordgoWaitsForARateLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c := w.client()
	w.FailHTTP(discord.HTTPFault{Method: "POST", Path: "/messages", Status: 429, RetryAfter: 50 * time.Millisecond})
	var limit *discordgo.RateLimitError
	if _, err := c.ChannelMessageSend(w.channel.ID, "x"); !errors.As(err, &limit) || limit.RetryAfter != 50*time.Millisecond {
		t.Errorf("the error is %v", err)
	}
	w.FailHTTP(discord.HTTPFault{Method: "POST", Path: "/messages", Status: 429, RetryAfter: time.Millisecond})
	c.ShouldRetryOnRateLimit = true
	if _, err := c.ChannelMessageSend(w.channel.ID, "x"); err != nil {
		t.Error(err)
	}
	if n := len(w.Said(w.channel.ID)); n != 1 {
		t.Errorf("%d messages were posted", n)
	}
}

func TestInjectedFaultLooksLikeADiscordError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	for _, tt := range []struct {
		name   string
		fault  discord.HTTPFault
		status int
		code   int
		said   int
	}{
		{"a status", discord.HTTPFault{Status: 502}, 502, 0, 0},
		{"a status once it is done", discord.HTTPFault{Status: 500, Done: true}, 500, 0, 1},
		{"too large", discord.HTTPFault{Status: 413}, 413, 40005, 0},
		{"one of the gateway", discord.HTTPFault{Path: "/", Status: 500}, 200, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.ClearFaults()
			w.FailHTTP(tt.fault)
			before := len(w.Said(w.channel.ID))
			r := w.call("POST", w.messages(), object{"content": "x"})
			if text, _ := r.body["message"].(string); r.status != tt.status || r.code() != tt.code || (text == "") == (tt.status >= 400) {
				t.Errorf("got %d, %v", r.status, r.body)
			}
			if n := len(w.Said(w.channel.ID)) - before; n != tt.said {
				t.Errorf("%d messages were posted", n)
			}
		})
	}
}

func TestMessageContentOverHTTPNeedsTheIntentOfTheApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	plain, err := w.AddBot(discord.Bot{User: discord.User{Name: "plain"}})
	w.must(err)
	w.join(plain.ID)
	w.say(w.viewer.ID, "secret")
	for token, want := range map[string]string{plain.Token: "", w.bot.Token: "secret"} {
		r := w.callWith("GET", "/v10"+w.messages(), "Bot "+token, nil, nil)
		if len(r.list) != 1 || r.list[0]["content"] != want {
			t.Errorf("the bot can read %v; want %q", r.list, want)
		}
	}
	if r := w.callWith("GET", "/v10/guilds/"+w.guild.ID+"/members", "Bot "+plain.Token, nil, nil); r.status != 403 {
		t.Errorf("the list of members without the intent: %d", r.status)
	}
}

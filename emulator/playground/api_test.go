package playground_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/playground"
	"parley.internal/emulator/twitch"
)

func TestPackageCommentListsEveryRoute(t *testing.T) {
	comment, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range regexp.MustCompile(`(?m)^//\t([A-Z]+) +(/api/\S+)`).FindAllStringSubmatch(string(comment), -1) {
		listed = append(listed, m[1]+" "+m[2])
	}
	routes := playground.Routes()
	slices.Sort(listed)
	slices.Sort(routes)
	if diff := cmp.Diff(routes, listed); diff != "" {
		t.Errorf("the package comment lists other routes (-served +listed):\n%s", diff)
	}
}

// failure is the body of an error.
type failure struct{ Error, Field string }

// refuses sends a request, and checks the status and the field of the error.
func (w *world) refuses(name, method, path, body string, status int, field string, header ...string) {
	w.t.Helper()
	resp, text := w.response(method, path, body, header...)
	var no failure
	if err := json.Unmarshal([]byte(text), &no); err != nil || resp.StatusCode != status || no.Field != field || no.Error == "" {
		w.t.Errorf("%s: %s %s: %d %s; want %d with the field %q", name, method, path, resp.StatusCode, text, status, field)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
		w.t.Errorf("%s: the error is %s", name, kind)
	}
	if resp.Header.Get("Access-Control-Allow-Origin") != "" {
		w.t.Errorf("%s: CORS is allowed", name)
	}
}

// call sends a request that succeeds, and decodes the response into out unless out is nil.
func (w *world) call(method, path, body string, out any) {
	w.t.Helper()
	status, text := w.request(method, path, body)
	if out == nil {
		if status != http.StatusNoContent || text != "" {
			w.t.Fatalf("%s %s %s: %d %s; want 204", method, path, body, status, text)
		}
		return
	}
	if status != http.StatusOK {
		w.t.Fatalf("%s %s %s: %d %s; want 200", method, path, body, status, text)
	}
	w.must(json.Unmarshal([]byte(text), out))
}

const streamerMessages = "/api/twitch/channels/streamer/messages"

func (w *world) generalMessages() string {
	return "/api/discord/guilds/" + w.guild.ID + "/channels/" + w.general.ID + "/messages"
}

func TestOnlyLocalRequestsWithTheTokenAreServed(t *testing.T) {
	w := newWorld(t)
	const good = `{"user":"viewer","text":"x"}`
	for _, c := range []struct {
		name   string
		status int
		field  string
		header []string
	}{
		{"no token", 401, "Authorization", []string{"Authorization", ""}},
		{"another token", 401, "Authorization", []string{"Authorization", "Bearer guess"}},
		{"part of the token", 401, "Authorization", []string{"Authorization", "Bearer " + token[:5]}},
		{"another scheme", 401, "Authorization", []string{"Authorization", "Bot " + token}},
		{"a foreign host name", 421, "Host", []string{"Host", "evil.example"}},
		{"a foreign page under its own name", 421, "Host", []string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}},
		{"a name that begins with localhost", 421, "Host", []string{"Host", "localhost.evil.example:80"}},
		{"another address", 421, "Host", []string{"Host", "192.168.1.2"}},
		{"another site", 403, "Origin", []string{"Sec-Fetch-Site", "cross-site"}},
		{"another port", 403, "Origin", []string{"Sec-Fetch-Site", "same-site"}},
		{"another origin, in an old browser", 403, "Origin", []string{"Origin", "http://evil.example"}},
		{"a form", 415, "Content-Type", []string{"Content-Type", "text/plain"}},
	} {
		w.refuses(c.name, http.MethodPost, streamerMessages, good, c.status, c.field, c.header...)
		if c.status != 403 && c.status != 415 { // reads
			w.refuses(c.name, http.MethodGet, "/events", "", c.status, c.field, c.header...)
			w.refuses(c.name, http.MethodGet, streamerMessages, "", c.status, c.field, c.header...)
		}
	}
	if n := len(w.twitch.Said("streamer")); n != 0 {
		t.Fatalf("%d lines were posted by refused requests", n)
	}
	for _, host := range []string{"localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "[::1]:8080"} {
		if status, body := w.request(http.MethodPost, streamerMessages, good, "Host", host, "Sec-Fetch-Site", "same-origin"); status != 200 {
			t.Errorf("Host %s: %d %s", host, status, body)
		}
	}
}

func TestInvalidRequestsNameTheField(t *testing.T) {
	w := newWorld(t)
	general, guild := w.generalMessages(), "/api/discord/guilds/"+w.guild.ID
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		field                    string
	}{
		{"no JSON", "POST", streamerMessages, `x`, 400, "body"},
		{"an empty body", "POST", streamerMessages, ` `, 400, "body"},
		{"an array", "POST", streamerMessages, `[]`, 400, "body"},
		{"null", "POST", streamerMessages, `null`, 400, "body"},
		{"two objects", "POST", streamerMessages, `{}{}`, 400, "body"},
		{"an unknown field", "POST", streamerMessages, `{"user":"viewer","txt":"x"}`, 400, "txt"},
		{"a field in other case", "POST", streamerMessages, `{"user":"viewer","Text":"x"}`, 400, "Text"},
		{"a repeated field", "POST", streamerMessages, `{"user":"viewer","text":"x","text":"y"}`, 400, "text"},
		{"a field of another type", "POST", streamerMessages, `{"text":1}`, 400, "text"},
		{"a tag of another type", "POST", streamerMessages, `{"user":"viewer","text":"x","tags":{"bits":1}}`, 400, "tags.bits"},
		{"an unknown nested field", "POST", general, `{"user":"1","attachments":[{"name":"a"},{"nmae":"b"}]}`, 400, "attachments.1.nmae"},
		{"too large", "POST", streamerMessages, `{"text":"` + strings.Repeat("x", 64<<10) + `"}`, 413, "body"},
		{"no such path", "GET", "/api/twitch/channel", "", 404, ""},
		{"no such platform", "GET", "/api/twilio/users", "", 404, ""},
		{"another method", "PUT", streamerMessages, `{}`, 405, ""},
		{"an unknown parameter", "GET", streamerMessages + "?form=1", "", 400, "form"},
		{"a parameter without a list", "POST", streamerMessages + "?after=1", `{}`, 400, "after"},
		{"a repeated parameter", "GET", streamerMessages + "?after=1&after=2", "", 400, "after"},
		{"a negative after", "GET", streamerMessages + "?after=-1", "", 400, "after"},
		{"no number", "GET", streamerMessages + "?limit=", "", 400, "limit"},
		{"too many", "GET", streamerMessages + "?limit=1001", "", 400, "limit"},
		{"too long a wait", "GET", streamerMessages + "?wait=31", "", 400, "wait"},
		{"a broken query", "GET", streamerMessages + "?after=%zz", "", 400, "query"},

		{"no such channel on Twitch", "GET", "/api/twitch/channels/nobody/messages", "", 404, "login"},
		{"no such line", "DELETE", streamerMessages + "/1", "", 404, "id"},
		{"no author", "POST", streamerMessages, `{"text":"x"}`, 422, "user"},
		{"no such author", "POST", streamerMessages, `{"user":"nobody","text":"x"}`, 422, "user"},
		{"no text", "POST", streamerMessages, `{"user":"viewer"}`, 422, "text"},
		{"too long for Twitch", "POST", streamerMessages, `{"user":"viewer","text":"` + strings.Repeat("ü", 501) + `"}`, 422, "text"},
		{"an answer to nothing", "POST", streamerMessages, `{"user":"viewer","text":"x","replyTo":"y"}`, 422, "replyTo"},
		{"a tag that breaks the line", "POST", streamerMessages, `{"user":"viewer","text":"x","tags":{"a b":"c"}}`, 422, "tags.a b"},
		{"too long tags", "POST", streamerMessages, `{"user":"viewer","text":"x","tags":{"a":"` + strings.Repeat("x", 8192) + `"}}`, 422, "tags"},
		{"a whisper to oneself", "POST", "/api/twitch/users/viewer/whispers", `{"user":"viewer","text":"x"}`, 422, "user"},
		{"two raw lines", "POST", "/api/twitch/irc", `{"line":"PING\r\nPING"}`, 422, "line"},
		{"no raw line", "POST", "/api/twitch/irc", `{"login":"parley"}`, 422, "line"},
		{"a raw line to nobody", "POST", "/api/twitch/irc", `{"login":"nobody","line":"PING"}`, 422, "login"},
		{"an invalid login", "PUT", "/api/twitch/users/two%20words", `{}`, 422, "displayName"},
		{"an invalid color", "PUT", "/api/twitch/users/new", `{"color":"red"}`, 422, "color"},
		{"a role of nobody", "PUT", "/api/twitch/channels/streamer/roles/nobody", `{}`, 404, "user"},
		{"negative months", "PUT", "/api/twitch/channels/streamer/roles/viewer", `{"subscriberMonths":-1}`, 422, "subscriberMonths"},
		{"too slow", "PUT", "/api/twitch/channels/streamer/settings", `{"slowSeconds":121}`, 422, "slowSeconds"},
		{"a negative time", "PUT", "/api/twitch/channels/streamer/settings", `{"followersOnlyMinutes":-1}`, 422, "followersOnlyMinutes"},
		{"too long a time-out", "PUT", "/api/twitch/channels/streamer/bans/viewer", `{"seconds":1209601}`, 422, "seconds"},
		{"a ban of the broadcaster", "PUT", "/api/twitch/channels/streamer/bans/streamer", `{}`, 422, "user"},
		{"no fault", "POST", "/api/twitch/faults", `{}`, 422, "body"},
		{"two faults", "POST", "/api/twitch/faults", `{"http":{},"chat":{}}`, 422, "body"},
		{"an invalid status", "POST", "/api/twitch/faults", `{"http":{"status":99}}`, 422, "http.status"},
		{"an unknown effect", "POST", "/api/twitch/faults", `{"irc":{"effect":"explode"}}`, 422, "irc.effect"},
		{"a fault of Discord", "POST", "/api/twitch/faults", `{"dispatch":{}}`, 400, "dispatch"},
		{"a negative number", "POST", "/api/twitch/faults", `{"chat":{"skip":-1}}`, 422, "chat.skip"},

		{"no such guild", "GET", "/api/discord/guilds/1/channels", "", 404, "guild"},
		{"no such channel", "GET", guild + "/channels/1/messages", "", 404, "channel"},
		{"direct messages of two people", "GET", "/api/discord/dms/" + w.viewer.ID + "/" + w.owner.ID + "/messages", "", 404, "bot"},
		{"no such message", "DELETE", general + "/1", "", 404, "id"},
		{"an edit of nothing", "PATCH", general + "/1", `{"text":"x"}`, 404, "id"},
		{"no such author on Discord", "POST", general, `{"user":"1","text":"x"}`, 422, "user"},
		{"nothing to send", "POST", general, `{"user":"` + w.viewer.ID + `"}`, 422, "text"},
		{"too long for Discord", "POST", general, `{"user":"` + w.viewer.ID + `","typed":true,"text":"` + strings.Repeat("ü", 2001) + `"}`, 422, "text"},
		{"not a member", "POST", general, `{"user":"` + w.outside.ID + `","text":"x"}`, 422, "text"},
		{"no shared guild", "POST", "/api/discord/dms/" + w.outside.ID + "/" + w.bot.ID + "/messages", `{"user":"` + w.outside.ID + `","text":"x","typed":true}`, 422, "text"},
		{"a file without a name", "POST", general, `{"user":"` + w.viewer.ID + `","attachments":[{}]}`, 422, "attachments.0.name"},
		{"too many stickers", "POST", general, `{"user":"` + w.viewer.ID + `","stickers":[{"name":"a"},{"name":"a"},{"name":"a"},{"name":"a"}]}`, 422, "stickers"},
		{"a poll without answers", "POST", general, `{"user":"` + w.viewer.ID + `","poll":{"question":"?"}}`, 422, "poll.answers"},
		{"a forward of nothing", "POST", general, `{"user":"` + w.viewer.ID + `","forward":{"channel":"1","message":"2"}}`, 422, "text"},
		{"a bulk deletion of one", "POST", general + "/bulk-delete", `{"messages":["1"]}`, 422, "messages"},
		{"a member with an unknown role", "PUT", guild + "/members/" + w.viewer.ID, `{"roles":["1"]}`, 422, "roles"},
		{"a ban of the owner", "PUT", guild + "/bans/" + w.owner.ID, `{}`, 422, "user"},
		{"the end of no ban", "DELETE", guild + "/bans/" + w.viewer.ID, "", 404, "user"},
		{"a time-out of no time", "PUT", guild + "/timeouts/" + w.viewer.ID, `{}`, 422, "seconds"},
		{"an unknown close code", "POST", "/api/discord/faults", `{"gateway":{"effect":"close","code":1}}`, 422, "gateway.code"},
		{"too long a delay", "POST", "/api/discord/faults", `{"dispatch":{"delayMs":600001}}`, 422, "dispatch.delayMs"},
	} {
		w.refuses(c.name, c.method, c.path, c.body, c.status, c.field)
	}
	if resp, _ := w.response(http.MethodPut, streamerMessages, `{}`); resp.Header.Get("Allow") != "DELETE, GET, HEAD, POST" {
		t.Errorf("Allow: %q", resp.Header.Get("Allow"))
	}
	if n := len(w.twitch.Said("streamer")) + len(w.discord.Said(w.general.ID)); n != 0 {
		t.Errorf("%d messages were posted by refused requests", n)
	}
}

func TestTypedMessagesFollowTheRulesForPeople(t *testing.T) {
	w := newWorld(t)
	say := func(user, text string) string { return `{"user":"` + user + `","text":"` + text + `","typed":true}` }
	w.call(http.MethodPut, "/api/twitch/channels/streamer/settings", `{"slowSeconds":120}`, nil)
	var line struct {
		Text   string
		Action bool
	}
	w.call(http.MethodPost, streamerMessages, say("viewer", `/me  one\nline `), &line)
	if line.Text != "one line" || !line.Action {
		t.Errorf("said %+v", line)
	}
	w.refuses("slow mode", http.MethodPost, streamerMessages, say("viewer", "two"), 422, "text")
	w.call(http.MethodPut, "/api/twitch/channels/streamer/bans/viewer", `{"seconds":60,"reason":"rude"}`, nil)
	w.refuses("timed out on Twitch", http.MethodPost, streamerMessages, say("viewer", "three"), 422, "text")
	w.call(http.MethodDelete, "/api/twitch/channels/streamer/bans/viewer", "", nil)
	w.call(http.MethodPut, "/api/twitch/channels/streamer/roles/viewer", `{"moderator":true}`, nil)
	w.call(http.MethodPost, streamerMessages, say("viewer", "four"), &line)

	timeouts := "/api/discord/guilds/" + w.guild.ID + "/timeouts/" + w.viewer.ID
	w.call(http.MethodPut, timeouts, `{"seconds":60}`, nil)
	w.refuses("timed out on Discord", http.MethodPost, w.generalMessages(), say(w.viewer.ID, "one"), 422, "text")
	w.call(http.MethodDelete, timeouts, "", nil)
	w.call(http.MethodPost, w.generalMessages(), say(w.viewer.ID, "two"), &line)
	bans := "/api/discord/guilds/" + w.guild.ID + "/bans/" + w.viewer.ID
	w.call(http.MethodPut, bans, `{"reason":"rude"}`, nil)
	w.refuses("banned on Discord", http.MethodPost, w.generalMessages(), say(w.viewer.ID, "three"), 422, "text")
	w.call(http.MethodDelete, bans, "", nil)
	var member struct{ Nick string }
	w.call(http.MethodPut, "/api/discord/guilds/"+w.guild.ID+"/members/"+w.viewer.ID, `{"nick":"V"}`, &member)
	w.call(http.MethodPost, w.generalMessages(), say(w.viewer.ID, "four"), &line)
}

func TestListsHavePagesAndWait(t *testing.T) {
	w := newWorld(t)
	for _, login := range []string{"viewer", "parley", "viewer"} {
		_, err := w.twitch.Say("streamer", login, "from "+login)
		w.must(err)
	}
	type lines struct {
		Items []struct{ User, Text, Via string }
		Next  int
	}
	for _, c := range []struct {
		query string
		items int
		next  int
	}{
		{"", 3, 3}, {"?limit=2", 2, 2}, {"?after=2", 1, 3}, {"?after=3", 0, 3}, {"?after=9", 0, 9}, {"?user=parley", 1, 3}, {"?user=viewer&limit=1", 1, 1},
		{"?after=3&wait=0", 0, 3}, {"?wait=30", 3, 3},
	} {
		var got lines
		w.call(http.MethodGet, streamerMessages+c.query, "", &got)
		if len(got.Items) != c.items || got.Next != c.next {
			t.Errorf("%s: %d items, next %d; want %d and %d", c.query, len(got.Items), got.Next, c.items, c.next)
		}
	}
	var posting sync.WaitGroup
	posting.Go(func() {
		for _, login := range []string{"viewer", "parley"} {
			if _, err := w.twitch.Say("streamer", login, "late"); err != nil {
				t.Error(err)
			}
		}
	})
	var late lines
	w.call(http.MethodGet, streamerMessages+"?after=3&wait=30&user=parley", "", &late)
	if len(late.Items) != 1 || late.Items[0].User != "parley" || late.Next != 5 {
		t.Errorf("waited for %+v", late)
	}
	posting.Wait()
	for path, least := range map[string]int{
		"/api/twitch/users": 3, "/api/discord/users": 4, "/api/discord/guilds": 1, "/api/discord/guilds/" + w.guild.ID + "/channels": 1,
		"/api/discord/guilds/" + w.guild.ID + "/roles": 1, "/api/discord/guilds/" + w.guild.ID + "/members": 3,
	} {
		var got struct{ Items []map[string]any }
		if w.call(http.MethodGet, path, "", &got); len(got.Items) != least {
			t.Errorf("%s has %d items; want %d", path, len(got.Items), least)
		}
	}
}

func TestActionsAreListed(t *testing.T) {
	w := newWorld(t)
	var said struct{ ID string }
	w.call(http.MethodPost, streamerMessages, `{"user":"viewer","text":"rude"}`, &said)
	w.call(http.MethodDelete, streamerMessages+"/"+said.ID, "", nil)
	w.call(http.MethodPut, "/api/twitch/channels/streamer/bans/viewer", `{"seconds":60,"reason":"rude"}`, nil)
	w.call(http.MethodDelete, streamerMessages, "", nil)
	var actions struct {
		Items []struct {
			Action, User, MessageID, Reason string
			Seconds                         int
		}
	}
	w.call(http.MethodGet, "/api/twitch/channels/streamer/actions", "", &actions)
	if a := actions.Items; len(a) != 3 || a[0].Action != twitch.ActionDelete || a[0].MessageID != said.ID || a[1].Action != twitch.ActionTimeout ||
		a[1].User != "viewer" || a[1].Seconds != 60 || a[1].Reason != "rude" || a[2].Action != twitch.ActionClear {
		t.Errorf("actions on Twitch: %+v", a)
	}

	role, err := w.discord.AddRole(discord.Role{GuildID: w.guild.ID, Name: "warden", Permissions: discord.BanMembers})
	w.must(err)
	var member struct{ Roles []string }
	w.call(http.MethodPut, "/api/discord/guilds/"+w.guild.ID+"/members/"+w.bot.ID, `{"roles":["`+role.ID+`"]}`, &member)
	w.botRequest(http.MethodPut, "/guilds/"+w.guild.ID+"/bans/"+w.viewer.ID, "{}", "X-Audit-Log-Reason", "rude")
	var audit struct {
		Items []struct{ Action, ByID, TargetID, Reason string }
	}
	w.call(http.MethodGet, "/api/discord/guilds/"+w.guild.ID+"/actions?wait=30", "", &audit)
	if a := audit.Items; len(a) != 1 || a[0].Action != discord.ActionMemberBanAdd || a[0].ByID != w.bot.ID || a[0].TargetID != w.viewer.ID || a[0].Reason != "rude" {
		t.Errorf("actions on Discord: %+v", a)
	}
}

func TestBotsMessagesAreListedWithPings(t *testing.T) {
	w := newWorld(t)
	var role struct{ ID string }
	w.call(http.MethodPut, "/api/discord/guilds/"+w.guild.ID+"/roles/77", `{"name":"Players","permissions":"0","mentionable":true}`, &role)
	var member struct{ Nick string }
	w.call(http.MethodPut, "/api/discord/guilds/"+w.guild.ID+"/members/"+w.viewer.ID, `{"roles":["77"]}`, &member)
	w.botRequest(http.MethodPost, "/channels/"+w.general.ID+"/messages", `{"content":"hello <@&77>","nonce":"n1"}`)
	var got struct {
		Items []struct {
			User, Text, Via, Nonce      string
			Bot                         bool
			Pings, MentionRoles, Embeds []string
		}
	}
	w.call(http.MethodGet, w.generalMessages()+"?user="+w.bot.ID, "", &got)
	if m := got.Items; len(m) != 1 || m[0].User != w.bot.ID || !m[0].Bot || m[0].Text != "hello <@&77>" || m[0].Via != discord.ViaAPI || m[0].Nonce != "n1" ||
		!slices.Equal(m[0].Pings, []string{w.viewer.ID}) || !slices.Equal(m[0].MentionRoles, []string{"77"}) || m[0].Embeds == nil {
		t.Errorf("the bot's messages: %+v", m)
	}
}

func TestFaultsAreInjectedAndRemoved(t *testing.T) {
	w := newWorld(t)
	messages := "/channels/" + w.general.ID + "/messages"
	var affected struct{ Connections int }
	w.call(http.MethodPost, "/api/discord/faults", `{"http":{"method":"POST","path":"/messages","status":503,"times":2,"headers":{"X-Fault":"yes"}}}`, &affected)
	if resp := w.botRequest(http.MethodPost, messages, `{"content":"one"}`); resp.StatusCode != 503 || resp.Header.Get("X-Fault") != "yes" {
		t.Errorf("status %d, header %v; want the fault", resp.StatusCode, resp.Header)
	}
	w.call(http.MethodDelete, "/api/discord/faults", "", nil)
	if resp := w.botRequest(http.MethodPost, messages, `{"content":"one"}`); resp.StatusCode != 200 {
		t.Errorf("status %d after the removal of the faults", resp.StatusCode)
	}

	bot := w.irc("parley")
	var chatters struct{ Items []struct{ Login string } }
	if w.call(http.MethodGet, "/api/twitch/channels/streamer/chatters", "", &chatters); len(chatters.Items) != 1 || chatters.Items[0].Login != "parley" {
		t.Errorf("in the channel are %+v", chatters.Items)
	}
	w.call(http.MethodPost, "/api/twitch/faults", `{"chat":{"user":"parley","notice":"msg_ratelimit"}}`, &affected)
	bot.Say("streamer", "refused")
	if n := next(t, bot.notices); n.MsgID != "msg_ratelimit" {
		t.Errorf("the bot got %+v", n)
	}
	w.call(http.MethodPost, "/api/twitch/faults", `{"irc":{"login":"parley","effect":"drop"}}`, &affected)
	if affected.Connections != 1 {
		t.Errorf("%d connections were dropped", affected.Connections)
	}
	next(t, bot.connects) // again
}

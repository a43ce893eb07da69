package discord_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/bwmarrin/discordgo"
	"github.com/google/go-cmp/cmp"

	"parley.internal/emulator/discord"
)

func TestAuditLogEntriesAreSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	low := w.role("low", 0)
	mods := w.role("mods", discord.ViewAuditLog|discord.ManageMessages|discord.ManageNicknames|discord.ManageRoles|
		discord.ModerateMembers|discord.BanMembers|discord.KickMembers)
	w.must(w.SetRoles(w.guild.ID, w.bot.ID, mods.ID))
	c := w.connect(allIntents)
	until := w.clock.Now().Add(time.Hour)
	text := until.UTC().Format("2006-01-02T15:04:05.000000+00:00")
	role := []any{object{"id": low.ID, "name": "low"}}
	guild := "/guilds/" + w.guild.ID
	member, ban := guild+"/members/"+w.viewer.ID, guild+"/bans/"+w.viewer.ID
	one, two, three := w.say(w.viewer.ID, "one"), w.say(w.viewer.ID, "two"), w.say(w.viewer.ID, "three")
	for _, step := range []struct {
		name, method, path string
		body               any
		want               []object // without id, guild_id and user_id
	}{
		{"a nickname", "PATCH", member, object{"nick": "Vee"}, []object{{
			"action_type": 24., "target_id": w.viewer.ID, "changes": []any{object{"key": "nick", "new_value": "Vee"}}}}},
		{"the same nickname", "PATCH", member, object{"nick": "Vee"}, nil},
		{"an unknown field", "PATCH", member, object{"unknown": 1}, nil},
		{"a nickname, roles and a time-out", "PATCH", member,
			object{"nick": nil, "roles": []string{low.ID}, "communication_disabled_until": until.Format(time.RFC3339)},
			[]object{
				{"action_type": 24., "target_id": w.viewer.ID, "changes": []any{
					object{"key": "nick", "old_value": "Vee"},
					object{"key": "communication_disabled_until", "new_value": text}}},
				{"action_type": 25., "target_id": w.viewer.ID, "changes": []any{object{"key": "$add", "new_value": role}}},
			}},
		{"the end of the time-out", "PATCH", member, object{"communication_disabled_until": nil}, []object{{
			"action_type": 24., "target_id": w.viewer.ID,
			"changes": []any{object{"key": "communication_disabled_until", "old_value": text}}}}},
		{"a role of the member", "PUT", member + "/roles/" + low.ID, nil, nil},
		{"the removal of a role", "DELETE", member + "/roles/" + low.ID, nil, []object{{
			"action_type": 25., "target_id": w.viewer.ID, "changes": []any{object{"key": "$remove", "new_value": role}}}}},
		{"a new role", "PUT", member + "/roles/" + low.ID, nil, []object{{
			"action_type": 25., "target_id": w.viewer.ID, "changes": []any{object{"key": "$add", "new_value": role}}}}},
		{"a deletion", "DELETE", w.messages() + "/" + one.ID, nil, []object{{
			"action_type": 72., "target_id": w.viewer.ID, "options": object{"channel_id": w.channel.ID, "count": "1"}}}},
		{"a bulk deletion", "POST", w.messages() + "/bulk-delete", object{"messages": []string{two.ID, three.ID}}, []object{{
			"action_type": 73., "target_id": w.channel.ID, "options": object{"count": "2"}}}},
		{"a kick", "DELETE", member, nil, []object{{"action_type": 20., "target_id": w.viewer.ID}}},
		{"a ban", "PUT", ban, object{}, []object{{"action_type": 22., "target_id": w.viewer.ID}}},
		{"a second ban", "PUT", ban, object{}, nil},
		{"the end of the ban", "DELETE", ban, nil, []object{{"action_type": 23., "target_id": w.viewer.ID}}},
	} {
		before := len(w.AuditLog(w.guild.ID))
		header := http.Header{"X-Audit-Log-Reason": {"because%20of%20" + step.method}}
		if r := w.callWith(step.method, "/v10"+step.path, "Bot "+w.bot.Token, header, step.body); r.status >= 300 {
			t.Fatalf("%s: %d %v", step.name, r.status, r.body)
		}
		log := w.AuditLog(w.guild.ID)[before:]
		if len(log) != len(step.want) {
			t.Fatalf("%s: the audit log has %+v", step.name, log)
		}
		for i, want := range step.want {
			want["id"], want["guild_id"], want["user_id"] = log[i].ID, w.guild.ID, w.bot.ID
			want["reason"] = "because of " + step.method
			var got object
			w.must(json.Unmarshal(c.event(t, "GUILD_AUDIT_LOG_ENTRY_CREATE").RawData, &got))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", step.name, diff)
			}
		}
	}
}

func TestAuditLogEntriesNeedAnIntentAndAPermission(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		intents     discordgo.Intent
		permissions discord.Permissions
		want        bool
	}{
		"intent and permission":    {allIntents, discord.KickMembers | discord.ViewAuditLog, true},
		"without the intent":       {allIntents &^ discordgo.IntentGuildModeration, discord.KickMembers | discord.ViewAuditLog, false},
		"without the permission":   {allIntents, discord.KickMembers, false},
		"a bot that administrates": {allIntents, discord.Administrator, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, unlimited())
			w.must(w.SetRoles(w.guild.ID, w.bot.ID, w.role("mods", tt.permissions).ID))
			c := w.connect(tt.intents)
			w.must(c.GuildMemberDelete(w.guild.ID, w.viewer.ID))
			got := false
			for {
				e := next(t, c.others)
				got = got || e.Type == "GUILD_AUDIT_LOG_ENTRY_CREATE"
				if e.Type == "GUILD_MEMBER_REMOVE" { // sent after the entry
					break
				}
			}
			if got != tt.want {
				t.Errorf("the entry was sent: %v; want %v", got, tt.want)
			}
		})
	}
}

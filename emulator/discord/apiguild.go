package discord

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Guilds over HTTP: https://discord.com/developers/docs/resources/guild

// getGuild implements https://discord.com/developers/docs/resources/guild#get-guild
func (s *Server) getGuild(c *call) answer {
	g, _, a := s.guildFor(c, 0)
	if !a.ok() {
		return a
	}
	j := g.json()
	if with := c.r.URL.Query().Get("with_counts"); with == "true" || with == "True" || with == "1" {
		j["approximate_member_count"] = len(g.members)
		j["approximate_presence_count"] = len(g.members)
	}
	return success(j)
}

// getChannels implements https://discord.com/developers/docs/resources/guild#get-guild-channels
func (s *Server) getChannels(c *call) answer {
	g, _, a := s.guildFor(c, 0)
	if !a.ok() {
		return a
	}
	all := []any{}
	for _, ch := range g.channels {
		if s.hasPermission(ch, c.bot, ViewChannel) {
			all = append(all, s.channelJSON(ch, c.bot))
		}
	}
	return success(all)
}

// getRoles implements https://discord.com/developers/docs/resources/guild#get-guild-roles
func (s *Server) getRoles(c *call) answer {
	g, _, a := s.guildFor(c, 0)
	if !a.ok() {
		return a
	}
	return success(g.json()["roles"])
}

// getMembers implements https://discord.com/developers/docs/resources/guild#list-guild-members
func (s *Server) getMembers(c *call) answer {
	g, _, a := s.guildFor(c, 0)
	if !a.ok() {
		return a
	}
	if c.bot.privileged&IntentGuildMembers == 0 {
		return missingAccess
	}
	limit, a := c.number("limit", 1, 1, 1000)
	if !a.ok() {
		return a
	}
	from, a := c.snowflake("after")
	if !a.ok() {
		return a
	}
	page := []any{}
	for _, m := range g.ordered() {
		if number(m.user.ID) > from && len(page) < limit {
			page = append(page, m.json(""))
		}
	}
	return success(page)
}

// memberFor returns the member of the path.
func (s *Server) memberFor(c *call, g *guild) (*member, answer) {
	id := c.r.PathValue("user")
	if id == "@me" {
		id = c.bot.ID
	}
	if s.users[id] == nil {
		return nil, unknownUser
	}
	m := g.members[id]
	if m == nil {
		return nil, unknownMember
	}
	return m, answer{}
}

// getMember implements https://discord.com/developers/docs/resources/guild#get-guild-member
func (s *Server) getMember(c *call) answer {
	g, _, a := s.guildFor(c, 0)
	if !a.ok() {
		return a
	}
	m, a := s.memberFor(c, g)
	if !a.ok() {
		return a
	}
	return success(m.json(""))
}

// maxTimeOut is the longest time-out.
const maxTimeOut = 28 * 24 * time.Hour

// editMember implements https://discord.com/developers/docs/resources/guild#modify-guild-member
func (s *Server) editMember(c *call) answer {
	g, me, a := s.guildFor(c, 0)
	if !a.ok() {
		return a
	}
	m, a := s.memberFor(c, g)
	if !a.ok() {
		return a
	}
	var form map[string]json.RawMessage
	if a := c.decode(&form); !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	// All fields are checked before any change. Discord ignores unknown fields.
	changed := *m
	for name, raw := range form {
		var a answer
		switch name {
		case "nick":
			a = s.editNick(&changed, me, raw)
		case "roles":
			a = s.editRoles(&changed, me, raw)
		case "communication_disabled_until":
			a = s.editTimeOut(&changed, me, raw)
		case "mute", "deaf", "channel_id", "flags":
			if string(raw) != "null" {
				a = invalid(name, "NOT_SERVED", "This fake of Discord cannot change it.")
			}
		}
		if !a.ok() {
			return a
		}
	}
	s.updateMember(m, changed, c.bot, reason)
	return success(m.json(""))
}

// maxNick is the largest number of characters in a nickname.
const maxNick = 32

func (s *Server) editNick(m, me *member, raw json.RawMessage) answer {
	var nick *string
	if json.Unmarshal(raw, &nick) != nil {
		return invalid("nick", "BASE_TYPE_BAD_TYPE", "Could not interpret this value.")
	}
	if s.permissions(me)&ManageNicknames == 0 || m.user != me.user && !me.above(m) {
		return missingPermissions
	}
	m.nick = ""
	if nick != nil {
		m.nick = *nick
	}
	if utf8.RuneCountInString(m.nick) > maxNick {
		return tooLong("nick", maxNick)
	}
	return answer{}
}

// editRoles adds and removes roles. All changed roles must be below the bot's highest role.
func (s *Server) editRoles(m, me *member, raw json.RawMessage) answer {
	var ids jsonIDs
	if json.Unmarshal(raw, &ids) != nil {
		return invalid("roles", "BASE_TYPE_BAD_TYPE", "Could not interpret this value.")
	}
	roles, err := m.guild.roleList(ids)
	if err != nil {
		return unknownRole
	}
	for id := range m.guild.roles {
		if slices.Contains(roles, id) != slices.Contains(m.roles, id) && !s.grants(me, id) {
			return missingPermissions
		}
	}
	m.roles = roles
	return answer{}
}

// grants reports whether the member may add and remove a role.
// https://discord.com/developers/docs/topics/permissions#permission-hierarchy
func (s *Server) grants(me *member, roleID string) bool {
	return s.permissions(me)&ManageRoles != 0 &&
		(me.guild.OwnerID == me.user.ID || me.guild.roles[roleID].Position < me.position())
}

func (s *Server) editTimeOut(m, me *member, raw json.RawMessage) answer {
	const field = "communication_disabled_until"
	var text *string
	if json.Unmarshal(raw, &text) != nil {
		return invalid(field, "DATE_TIME_TYPE_PARSE", "Could not interpret this value as a date.")
	}
	if s.permissions(me)&ModerateMembers == 0 || !me.above(m) {
		return missingPermissions
	}
	m.until = time.Time{}
	// discordgo ends a time-out with an empty text.
	if text == nil || *text == "" {
		return answer{}
	}
	until, err := time.Parse(time.RFC3339, *text)
	if err != nil {
		return invalid(field, "DATE_TIME_TYPE_PARSE", "Could not parse "+strconv.Quote(*text)+". Should be ISO8601.")
	}
	if until.Sub(s.now()) > maxTimeOut {
		return invalid(field, "GUILD_MEMBER_COMMUNICATION_DISABLED_UNTIL_TOO_LONG", "The time-out can't last longer than 28 days.")
	}
	// An administrator cannot be timed out.
	if base := *m; s.permissions(&base) == allPermissions {
		return missingPermissions
	}
	m.until = until
	return answer{}
}

// removeMember implements https://discord.com/developers/docs/resources/guild#remove-guild-member
func (s *Server) removeMember(c *call) answer {
	g, me, a := s.guildFor(c, KickMembers)
	if !a.ok() {
		return a
	}
	m, a := s.memberFor(c, g)
	if !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	if !me.above(m) {
		return missingPermissions
	}
	s.recordAudit(g, AuditEntry{Action: ActionMemberKick, ByID: c.bot.ID, TargetID: m.user.ID, Reason: reason})
	s.leave(m)
	return done
}

// addMemberRole implements https://discord.com/developers/docs/resources/guild#add-guild-member-role
func (s *Server) addMemberRole(c *call) answer {
	return s.changeRole(c, func(m *member, id string) {
		if !slices.Contains(m.roles, id) {
			m.roles = append(slices.Clone(m.roles), id)
		}
	})
}

// removeMemberRole implements https://discord.com/developers/docs/resources/guild#remove-guild-member-role
func (s *Server) removeMemberRole(c *call) answer {
	return s.changeRole(c, func(m *member, id string) {
		m.roles = slices.DeleteFunc(slices.Clone(m.roles), func(have string) bool { return have == id })
	})
}

func (s *Server) changeRole(c *call, change func(*member, string)) answer {
	g, me, a := s.guildFor(c, ManageRoles)
	if !a.ok() {
		return a
	}
	m, a := s.memberFor(c, g)
	if !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	id := c.r.PathValue("role")
	switch {
	case g.roles[id] == nil:
		return unknownRole
	case id == g.ID || !s.grants(me, id):
		return missingPermissions
	}
	changed := *m
	change(&changed, id)
	s.updateMember(m, changed, c.bot, reason)
	return done
}

func (b *Ban) json(u *account) map[string]any {
	return map[string]any{"reason": nullable(b.Reason), "user": u.json()}
}

// getBans implements https://discord.com/developers/docs/resources/guild#get-guild-bans
func (s *Server) getBans(c *call) answer {
	g, _, a := s.guildFor(c, BanMembers)
	if !a.ok() {
		return a
	}
	limit, a := c.number("limit", 1000, 1, 1000)
	if !a.ok() {
		return a
	}
	before, a := c.snowflake("before")
	if !a.ok() {
		return a
	}
	from, a := c.snowflake("after")
	if !a.ok() {
		return a
	}
	var ids []string
	for id := range g.bans {
		// before takes precedence over after.
		if n := number(id); before != 0 && n < before || before == 0 && n > from {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, older)
	if extra := len(ids) - limit; extra > 0 && before != 0 {
		ids = ids[extra:]
	}
	page := []any{}
	for _, id := range ids[:min(limit, len(ids))] {
		page = append(page, g.bans[id].json(s.users[id]))
	}
	return success(page)
}

// getBan implements https://discord.com/developers/docs/resources/guild#get-guild-ban
func (s *Server) getBan(c *call) answer {
	g, _, a := s.guildFor(c, BanMembers)
	if !a.ok() {
		return a
	}
	id := c.r.PathValue("user")
	if g.bans[id] == nil {
		return unknownBan
	}
	return success(g.bans[id].json(s.users[id]))
}

// Bounds of the period of messages deleted by a ban.
const (
	maxDeleteSeconds = 7 * 24 * 60 * 60
	maxDeleteDays    = 7
)

// createBan implements https://discord.com/developers/docs/resources/guild#create-guild-ban
func (s *Server) createBan(c *call) answer {
	g, me, a := s.guildFor(c, BanMembers)
	if !a.ok() {
		return a
	}
	u := s.users[c.r.PathValue("user")]
	if u == nil {
		return unknownUser
	}
	var form struct {
		Seconds *int `json:"delete_message_seconds"`
		Days    *int `json:"delete_message_days"`
	}
	if a := c.decode(&form); !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	var seconds int
	switch {
	case form.Seconds != nil && form.Days != nil:
		return invalid("delete_message_days", "MUTUALLY_EXCLUSIVE", "Only one of delete_message_seconds and delete_message_days may be passed.")
	case form.Seconds != nil:
		if seconds = *form.Seconds; seconds < 0 || seconds > maxDeleteSeconds {
			return outOfRange("delete_message_seconds", 0, maxDeleteSeconds)
		}
	default:
		// Older clients, such as discordgo, send the fields in the query.
		days, a := c.number("delete_message_days", 0, 0, maxDeleteDays)
		if !a.ok() {
			return a
		}
		if form.Days != nil {
			if days = *form.Days; days < 0 || days > maxDeleteDays {
				return outOfRange("delete_message_days", 0, maxDeleteDays)
			}
		}
		seconds = days * 24 * 60 * 60
		if reason == "" {
			reason = c.r.URL.Query().Get("reason")
		}
	}
	if u.ID == g.OwnerID || u == c.bot {
		return missingPermissions
	}
	if m := g.members[u.ID]; m != nil && !me.above(m) {
		return missingPermissions
	}
	if g.bans[u.ID] != nil {
		return done
	}
	s.recordAudit(g, AuditEntry{Action: ActionMemberBanAdd, ByID: c.bot.ID, TargetID: u.ID, Reason: reason})
	s.ban(g, u, &Ban{Reason: reason, ByID: c.bot.ID}, time.Duration(seconds)*time.Second)
	return done
}

// removeBan implements https://discord.com/developers/docs/resources/guild#remove-guild-ban
func (s *Server) removeBan(c *call) answer {
	g, _, a := s.guildFor(c, BanMembers)
	if !a.ok() {
		return a
	}
	reason, a := c.reason()
	if !a.ok() {
		return a
	}
	id := c.r.PathValue("user")
	if g.bans[id] == nil {
		return unknownBan
	}
	s.recordAudit(g, AuditEntry{Action: ActionMemberBanRemove, ByID: c.bot.ID, TargetID: id, Reason: reason})
	s.unban(g, s.users[id])
	return done
}

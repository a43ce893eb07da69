package discord

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// The audit log of a guild: https://discord.com/developers/docs/resources/audit-log

// AuditEntry is an audit log entry about an action of a bot.
// https://discord.com/developers/docs/resources/audit-log#audit-log-entry-object
type AuditEntry struct {
	// ID is a snowflake.
	ID string
	// Action is Discord's name of the action, such as "MEMBER_BAN_ADD".
	Action string
	// ByID is the bot. TargetID is the affected user, or the channel of a bulk deletion.
	ByID, TargetID string
	// Changes lists the changed fields of the member, for MEMBER_UPDATE and MEMBER_ROLE_UPDATE.
	Changes []AuditChange
	// Options is "count" of MESSAGE_DELETE and MESSAGE_BULK_DELETE, and "channel_id" of MESSAGE_DELETE.
	Options map[string]string
	// Reason comes from the X-Audit-Log-Reason header.
	Reason string
	At     time.Time
}

// AuditChange is a changed field. Old and New are JSON values; nil means null.
// https://discord.com/developers/docs/resources/audit-log#audit-log-change-object
type AuditChange struct {
	// Key is "nick", "communication_disabled_until", "$add" or "$remove". The last two are for roles.
	Key      string
	Old, New any
}

// Actions of the audit log.
// https://discord.com/developers/docs/resources/audit-log#audit-log-entry-object-audit-log-events
const (
	ActionMemberKick        = "MEMBER_KICK"
	ActionMemberBanAdd      = "MEMBER_BAN_ADD"
	ActionMemberBanRemove   = "MEMBER_BAN_REMOVE"
	ActionMemberUpdate      = "MEMBER_UPDATE"
	ActionMemberRoleUpdate  = "MEMBER_ROLE_UPDATE"
	ActionMessageDelete     = "MESSAGE_DELETE"
	ActionMessageBulkDelete = "MESSAGE_BULK_DELETE"
)

// actionTypes maps actions to Discord's numbers.
var actionTypes = map[string]int{
	ActionMemberKick:        20,
	ActionMemberBanAdd:      22,
	ActionMemberBanRemove:   23,
	ActionMemberUpdate:      24,
	ActionMemberRoleUpdate:  25,
	ActionMessageDelete:     72,
	ActionMessageBulkDelete: 73,
}

// AuditLog returns the actions of bots in a guild through the API, in order.
func (s *Server) AuditLog(guildID string) []AuditEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.guilds[guildID]; g != nil {
		return slices.Clone(g.audit)
	}
	return nil
}

// recordAudit completes an entry, adds it to the audit log, and sends it to the bots with the permission.
// https://discord.com/developers/docs/events/gateway-events#guild-audit-log-entry-create
func (s *Server) recordAudit(g *guild, e AuditEntry) {
	e.ID, e.At = s.newID(), s.now()
	g.audit = append(g.audit, e)
	s.dispatch("GUILD_AUDIT_LOG_ENTRY_CREATE", func(ss *session) any {
		if !ss.has(IntentGuildModeration, g) || s.permissions(g.members[ss.bot.ID])&ViewAuditLog == 0 {
			return nil
		}
		j := e.json()
		j["guild_id"] = g.ID
		return j
	})
}

func (e AuditEntry) json() map[string]any {
	j := map[string]any{
		"id":          e.ID,
		"action_type": actionTypes[e.Action],
		"user_id":     e.ByID,
		"target_id":   e.TargetID,
	}
	if e.Reason != "" {
		j["reason"] = e.Reason
	}
	if len(e.Options) > 0 {
		j["options"] = maps.Clone(e.Options)
	}
	if len(e.Changes) > 0 {
		changes := make([]any, len(e.Changes))
		for i, c := range e.Changes {
			changes[i] = c.json()
		}
		j["changes"] = changes
	}
	return j
}

// json leaves out null values.
func (c AuditChange) json() map[string]any {
	j := map[string]any{"key": c.Key}
	if c.Old != nil {
		j["old_value"] = c.Old
	}
	if c.New != nil {
		j["new_value"] = c.New
	}
	return j
}

// countOption is the count in the options of an entry.
func countOption(n int) map[string]string { return map[string]string{"count": strconv.Itoa(n)} }

// updateMember stores a changed copy of the member. It records the changes in the audit log, roles apart from other
// fields, and sends the update. Without a change it does nothing.
func (s *Server) updateMember(m *member, changed member, by *account, reason string) {
	old := *m
	*m = changed
	fields, roles := fieldChanges(&old, m), roleChanges(&old, m)
	if fields != nil {
		s.recordAudit(m.guild, AuditEntry{Action: ActionMemberUpdate, ByID: by.ID, TargetID: m.user.ID, Changes: fields, Reason: reason})
	}
	if roles != nil {
		s.recordAudit(m.guild, AuditEntry{Action: ActionMemberRoleUpdate, ByID: by.ID, TargetID: m.user.ID, Changes: roles, Reason: reason})
	}
	if fields != nil || roles != nil {
		s.dispatchMember(m)
	}
}

func fieldChanges(before, after *member) []AuditChange {
	var changes []AuditChange
	if before.nick != after.nick {
		changes = append(changes, AuditChange{Key: "nick", Old: nullable(before.nick), New: nullable(after.nick)})
	}
	if !before.until.Equal(after.until) {
		changes = append(changes, AuditChange{
			Key: "communication_disabled_until",
			Old: nullableTime(before.until),
			New: nullableTime(after.until),
		})
	}
	return changes
}

func nullableTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return formatTime(t)
}

// roleChanges lists the added and the removed roles with id and name.
// https://discord.com/developers/docs/resources/audit-log#audit-log-change-object-audit-log-change-exceptions
func roleChanges(before, after *member) []AuditChange {
	var changes []AuditChange
	missing := func(key string, from, in []string) {
		var roles []any
		for _, id := range from {
			if !slices.Contains(in, id) {
				roles = append(roles, map[string]any{"id": id, "name": after.guild.roles[id].Name})
			}
		}
		if roles != nil {
			changes = append(changes, AuditChange{Key: key, New: roles})
		}
	}
	missing("$remove", before.roles, after.roles)
	missing("$add", after.roles, before.roles)
	return changes
}

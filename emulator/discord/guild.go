package discord

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Guild is a guild, also called a server by users. https://discord.com/developers/docs/resources/guild
type Guild struct {
	// ID is a snowflake. AddGuild fills in an empty ID.
	ID      string
	Name    string
	OwnerID string
}

type guild struct {
	Guild
	roles    map[string]*Role
	channels []*channel
	members  map[string]*member
	bans     map[string]*Ban
	audit    []AuditEntry
}

// AddGuild makes a guild with the owner as first member, the role @everyone, and no channel. If the id exists, the
// guild gets the new name.
func (s *Server) AddGuild(g Guild) (Guild, error) {
	if g.Name == "" {
		return Guild{}, fmt.Errorf("discord: a guild needs a name")
	}
	s.lock()
	defer s.unlock()
	owner, err := s.account(g.OwnerID)
	if err != nil {
		return Guild{}, fmt.Errorf("discord: the owner of %s: %w", g.Name, err)
	}
	if g.ID, err = s.idFor(g.ID, "guild "+g.Name); err != nil {
		return Guild{}, err
	}
	if old := s.guilds[g.ID]; old != nil {
		if old.OwnerID != g.OwnerID {
			return Guild{}, fmt.Errorf("discord: guild %s is owned by %s, not %s", g.ID, old.OwnerID, g.OwnerID)
		}
		old.Guild = g
		return g, nil
	}
	made := &guild{
		Guild:   g,
		roles:   map[string]*Role{g.ID: {ID: g.ID, GuildID: g.ID, Name: "@everyone", Permissions: DefaultPermissions}},
		members: map[string]*member{},
		bans:    map[string]*Ban{},
	}
	s.guilds[g.ID] = made
	s.join(made, owner, nil)
	return g, nil
}

// idFor checks an id, or makes a new id if the id is empty.
func (s *Server) idFor(id, what string) (string, error) {
	if id == "" {
		return s.newID(), nil
	}
	if _, err := snowflake(id); err != nil {
		return "", fmt.Errorf("discord: %s: %w", what, err)
	}
	return id, nil
}

// Guilds returns all guilds, oldest first.
func (s *Server) Guilds() []Guild {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Guild
	for _, id := range slices.SortedFunc(maps.Keys(s.guilds), older) {
		all = append(all, s.guilds[id].Guild)
	}
	return all
}

func (s *Server) guild(id string) (*guild, error) {
	g := s.guilds[id]
	if g == nil {
		return nil, fmt.Errorf("discord: there is no guild %q", id)
	}
	return g, nil
}

func (g *guild) json() map[string]any {
	roles := []any{}
	for _, r := range g.ranked() {
		roles = append(roles, r.json())
	}
	return map[string]any{
		"id":                            g.ID,
		"name":                          g.Name,
		"icon":                          nil,
		"splash":                        nil,
		"owner_id":                      g.OwnerID,
		"afk_channel_id":                nil,
		"afk_timeout":                   300,
		"verification_level":            0,
		"default_message_notifications": 0,
		"explicit_content_filter":       0,
		"roles":                         roles,
		"emojis":                        []any{},
		"stickers":                      []any{},
		"features":                      []any{},
		"mfa_level":                     0,
		"application_id":                nil,
		"system_channel_id":             nil,
		"system_channel_flags":          0,
		"rules_channel_id":              nil,
		"description":                   nil,
		"banner":                        nil,
		"premium_tier":                  0,
		"preferred_locale":              "en-US",
		"nsfw_level":                    0,
	}
}

// guildCreate returns the guild as sent to a bot: only a session with the presences intent gets other members.
// https://discord.com/developers/docs/events/gateway-events#guild-create
func (s *Server) guildCreate(ss *session, g *guild) map[string]any {
	j := g.json()
	channels, members := []any{}, []any{}
	for _, c := range g.channels {
		if s.hasPermission(c, ss.bot, ViewChannel) {
			channels = append(channels, s.channelJSON(c, ss.bot))
		}
	}
	for _, m := range g.ordered() {
		if m.user == ss.bot || ss.intents&IntentGuildPresences != 0 {
			members = append(members, m.json(""))
		}
	}
	j["joined_at"] = formatTime(g.members[ss.bot.ID].joined)
	j["large"] = false
	j["unavailable"] = false
	j["member_count"] = len(g.members)
	j["voice_states"] = []any{}
	j["members"] = members
	j["channels"] = channels
	j["threads"] = []any{}
	j["presences"] = []any{}
	j["stage_instances"] = []any{}
	j["guild_scheduled_events"] = []any{}
	j["soundboard_sounds"] = []any{}
	return j
}

// formatTime formats a time like Discord.
func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000+00:00") }

// shareGuild reports whether two users are members of the same guild.
func (s *Server) shareGuild(a, b *account) bool {
	for _, g := range s.guilds {
		if g.members[a.ID] != nil && g.members[b.ID] != nil {
			return true
		}
	}
	return false
}

package discord

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Guilds with their roles, channels and members, see
// https://discord.com/developers/docs/resources/guild and
// https://discord.com/developers/docs/resources/channel

// Guild is what users call a server.
type Guild struct {
	// ID is a snowflake. AddGuild chooses one where it is empty.
	ID      string
	Name    string
	OwnerID string
}

// Role is what members have. The role whose id is the guild's is @everyone,
// which every member has and no list of roles names.
// https://discord.com/developers/docs/topics/permissions#role-object
type Role struct {
	// ID is a snowflake. AddRole chooses one where it is empty.
	ID      string
	GuildID string
	Name    string
	// Position is the place in the hierarchy, the highest rules; @everyone has
	// 0. AddRole puts a new role above all others where it is 0.
	Position    int
	Permissions Permissions
	// Mentionable is set where everyone may ping the role.
	Mentionable bool
}

// ChannelType says what a channel is.
// https://discord.com/developers/docs/resources/channel#channel-object-channel-types
type ChannelType int

// Types of channels. Messages are only in text and announcement channels, and in
// DMs.
const (
	TextChannel         ChannelType = 0
	DMChannel           ChannelType = 1
	VoiceChannel        ChannelType = 2
	CategoryChannel     ChannelType = 4
	AnnouncementChannel ChannelType = 5
)

// Channel is a guild's, or the direct messages of two users.
type Channel struct {
	// ID is a snowflake. AddChannel chooses one where it is empty.
	ID string
	// GuildID is empty for direct messages.
	GuildID string
	Name    string
	Type    ChannelType
	// Overwrites change what roles and members may do in it.
	Overwrites []Overwrite
	// UserIDs are the two of direct messages.
	UserIDs []string
}

// Member is a user in a guild.
// https://discord.com/developers/docs/resources/guild#guild-member-object
type Member struct {
	GuildID string
	User    User
	// Nick is the name in the guild; empty where it is the user's own.
	Nick string
	// Roles are ids, without @everyone's.
	Roles    []string
	JoinedAt time.Time
	// TimedOutUntil is zero for one who never was.
	TimedOutUntil time.Time
}

type guild struct {
	Guild
	roles    map[string]*Role
	channels []*channel
	members  map[string]*member
	bans     map[string]*Ban
	audit    []AuditEntry
}

type channel struct {
	Channel
	guild    *guild     // nil for direct messages
	users    []*account // of direct messages
	messages []*message
	byID     map[string]*message
}

type member struct {
	guild  *guild
	user   *account
	nick   string
	roles  []string
	joined time.Time
	until  time.Time
}

// AddGuild makes a guild, of which the owner is the first member, with the role
// @everyone and without a channel. Where there is one with its id, that one
// takes the name.
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

// idFor checks an id, or makes one where it is empty.
func (s *Server) idFor(id, what string) (string, error) {
	if id == "" {
		return s.newID(), nil
	}
	if _, err := snowflake(id); err != nil {
		return "", fmt.Errorf("discord: %s: %w", what, err)
	}
	return id, nil
}

// AddChannel makes a channel, or changes the one with its id, and tells the bots
// that see it.
func (s *Server) AddChannel(c Channel) (Channel, error) {
	if c.Name == "" {
		return Channel{}, fmt.Errorf("discord: a channel needs a name")
	}
	if c.Type == DMChannel {
		return Channel{}, fmt.Errorf("discord: channel %s: DM opens direct messages", c.Name)
	}
	s.lock()
	defer s.unlock()
	g, err := s.guild(c.GuildID)
	if err != nil {
		return Channel{}, err
	}
	if c.ID, err = s.idFor(c.ID, "channel "+c.Name); err != nil {
		return Channel{}, err
	}
	c.UserIDs = nil
	c.Overwrites = slices.Clone(c.Overwrites)
	kind := "CHANNEL_UPDATE"
	made := s.channels[c.ID]
	switch {
	case made == nil:
		kind = "CHANNEL_CREATE"
		made = &channel{guild: g, byID: map[string]*message{}}
		s.channels[c.ID] = made
		g.channels = append(g.channels, made)
	case made.guild != g:
		return Channel{}, fmt.Errorf("discord: channel %s is not in guild %s", c.ID, g.ID)
	}
	made.Channel = c
	s.dispatch(kind, func(ss *session) any {
		if !ss.has(IntentGuilds, g) || !s.may(made, ss.bot, ViewChannel) {
			return nil
		}
		return s.channelJSON(made, ss.bot)
	})
	return c, nil
}

// AddRole makes a role, or changes the one with its id: @everyone's is the
// guild's.
func (s *Server) AddRole(r Role) (Role, error) {
	if r.Name == "" {
		return Role{}, fmt.Errorf("discord: a role needs a name")
	}
	s.lock()
	defer s.unlock()
	g, err := s.guild(r.GuildID)
	if err != nil {
		return Role{}, err
	}
	if r.ID, err = s.idFor(r.ID, "role "+r.Name); err != nil {
		return Role{}, err
	}
	kind := "GUILD_ROLE_CREATE"
	if old := g.roles[r.ID]; old != nil {
		kind = "GUILD_ROLE_UPDATE"
		r.Position = cmp.Or(r.Position, old.Position)
	}
	if r.ID == g.ID {
		r.Position = 0
	} else if r.Position == 0 {
		for _, other := range g.roles {
			r.Position = max(r.Position, other.Position+1)
		}
	}
	g.roles[r.ID] = &r
	s.dispatch(kind, func(ss *session) any {
		if !ss.has(IntentGuilds, g) {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "role": r.json()}
	})
	return r, nil
}

// RemoveRole takes a role away from the guild and all who have it.
func (s *Server) RemoveRole(guildID, roleID string) error {
	s.lock()
	defer s.unlock()
	g, err := s.guild(guildID)
	if err != nil {
		return err
	}
	if roleID == g.ID || g.roles[roleID] == nil {
		return fmt.Errorf("discord: guild %s has no role %q to remove", g.ID, roleID)
	}
	for _, m := range g.members {
		m.roles = slices.DeleteFunc(m.roles, func(id string) bool { return id == roleID })
	}
	delete(g.roles, roleID)
	s.dispatch("GUILD_ROLE_DELETE", func(ss *session) any {
		if !ss.has(IntentGuilds, g) {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "role_id": roleID}
	})
	return nil
}

// AddMember lets a user, who may be a bot, into a guild with these roles. One
// who is a member already takes the roles. One who is banned can't come.
func (s *Server) AddMember(guildID, userID string, roleIDs ...string) (Member, error) {
	s.lock()
	defer s.unlock()
	g, err := s.guild(guildID)
	if err != nil {
		return Member{}, err
	}
	u, err := s.account(userID)
	if err != nil {
		return Member{}, err
	}
	if g.bans[u.ID] != nil {
		return Member{}, fmt.Errorf("discord: %s is banned from guild %s", u.Name, g.ID)
	}
	roles, err := g.named(roleIDs)
	if err != nil {
		return Member{}, err
	}
	m := g.members[u.ID]
	if m == nil {
		m = s.join(g, u, roles)
	} else {
		m.roles = roles
		s.memberChanged(m)
	}
	return m.Member(), nil
}

// named are roles, each once.
func (g *guild) named(ids []string) ([]string, error) {
	roles := []string{}
	for _, id := range ids {
		if g.roles[id] == nil {
			return nil, fmt.Errorf("discord: guild %s has no role %q", g.ID, id)
		}
		if id != g.ID && !slices.Contains(roles, id) {
			roles = append(roles, id)
		}
	}
	return roles, nil
}

// join makes a user a member and tells the bots that are there, and a bot that
// comes what it has come to.
func (s *Server) join(g *guild, u *account, roles []string) *member {
	m := &member{guild: g, user: u, roles: append([]string{}, roles...), joined: s.now()}
	g.members[u.ID] = m
	s.dispatch("GUILD_MEMBER_ADD", func(ss *session) any {
		if !ss.has(IntentGuildMembers, g) || ss.bot == u {
			return nil
		}
		return m.json(g.ID)
	})
	s.dispatch("GUILD_CREATE", func(ss *session) any {
		if ss.bot != u || !ss.has(IntentGuilds, g) {
			return nil
		}
		return s.guildCreate(ss, g)
	})
	return m
}

// RemoveMember lets a user leave. The owner stays.
func (s *Server) RemoveMember(guildID, userID string) error {
	s.lock()
	defer s.unlock()
	m, err := s.member(guildID, userID)
	if err != nil {
		return err
	}
	if m.guild.OwnerID == userID {
		return fmt.Errorf("discord: the owner can't leave guild %s", guildID)
	}
	s.leave(m)
	return nil
}

func (s *Server) leave(m *member) {
	g := m.guild
	s.dispatch("GUILD_DELETE", func(ss *session) any {
		if ss.bot != m.user || !ss.has(IntentGuilds, g) {
			return nil
		}
		return map[string]any{"id": g.ID}
	})
	delete(g.members, m.user.ID)
	s.dispatch("GUILD_MEMBER_REMOVE", func(ss *session) any {
		if !ss.has(IntentGuildMembers, g) {
			return nil
		}
		return map[string]any{"guild_id": g.ID, "user": m.user.json()}
	})
}

// SetRoles gives a member these roles and no others.
func (s *Server) SetRoles(guildID, userID string, roleIDs ...string) error {
	return s.changeMember(guildID, userID, func(m *member) (err error) {
		roles, err := m.guild.named(roleIDs)
		if err == nil {
			m.roles = roles
		}
		return err
	})
}

// SetNick gives a member a name in the guild; an empty one takes it away.
func (s *Server) SetNick(guildID, userID, nick string) error {
	return s.changeMember(guildID, userID, func(m *member) error {
		m.nick = nick
		return nil
	})
}

func (s *Server) changeMember(guildID, userID string, change func(*member) error) error {
	s.lock()
	defer s.unlock()
	m, err := s.member(guildID, userID)
	if err != nil {
		return err
	}
	if err := change(m); err != nil {
		return err
	}
	s.memberChanged(m)
	return nil
}

// memberChanged tells of a member; a bot hears of itself without an intent.
func (s *Server) memberChanged(m *member) {
	s.dispatch("GUILD_MEMBER_UPDATE", func(ss *session) any {
		if !ss.has(IntentGuildMembers, m.guild) && (ss.bot != m.user || !ss.serves(m.guild)) {
			return nil
		}
		return m.json(m.guild.ID)
	})
}

// Guilds are all guilds, by age.
func (s *Server) Guilds() []Guild {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Guild
	for _, id := range slices.SortedFunc(maps.Keys(s.guilds), older) {
		all = append(all, s.guilds[id].Guild)
	}
	return all
}

// Channels are those of a guild, in order of their making.
func (s *Server) Channels(guildID string) []Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Channel
	if g := s.guilds[guildID]; g != nil {
		for _, c := range g.channels {
			all = append(all, c.Channel)
		}
	}
	return all
}

// Roles are those of a guild, the highest first.
func (s *Server) Roles(guildID string) []Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Role
	if g := s.guilds[guildID]; g != nil {
		for _, r := range g.ranked() {
			all = append(all, *r)
		}
	}
	return all
}

func (g *guild) ranked() []*Role {
	return slices.SortedFunc(maps.Values(g.roles), func(a, b *Role) int {
		return cmp.Or(b.Position-a.Position, older(a.ID, b.ID))
	})
}

// Members are those of a guild, by age.
func (s *Server) Members(guildID string) []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Member
	if g := s.guilds[guildID]; g != nil {
		for _, m := range g.ordered() {
			all = append(all, m.Member())
		}
	}
	return all
}

func (g *guild) ordered() []*member {
	return slices.SortedFunc(maps.Values(g.members), func(a, b *member) int { return older(a.user.ID, b.user.ID) })
}

// Member is the user as the guild knows it.
func (m *member) Member() Member {
	return Member{
		GuildID:       m.guild.ID,
		User:          m.user.User,
		Nick:          m.nick,
		Roles:         slices.Clone(m.roles),
		JoinedAt:      m.joined,
		TimedOutUntil: m.until,
	}
}

func (s *Server) guild(id string) (*guild, error) {
	g := s.guilds[id]
	if g == nil {
		return nil, fmt.Errorf("discord: there is no guild %q", id)
	}
	return g, nil
}

func (s *Server) channel(id string) (*channel, error) {
	c := s.channels[id]
	if c == nil {
		return nil, fmt.Errorf("discord: there is no channel %q", id)
	}
	return c, nil
}

func (s *Server) member(guildID, userID string) (*member, error) {
	g, err := s.guild(guildID)
	if err != nil {
		return nil, err
	}
	m := g.members[userID]
	if m == nil {
		return nil, fmt.Errorf("discord: %q is not a member of guild %s", userID, g.ID)
	}
	return m, nil
}

func (r *Role) json() map[string]any {
	return map[string]any{
		"id":          r.ID,
		"name":        r.Name,
		"color":       0,
		"hoist":       false,
		"position":    r.Position,
		"permissions": strconv.FormatUint(uint64(r.Permissions), 10),
		"managed":     false,
		"mentionable": r.Mentionable,
		"flags":       0,
	}
}

// json is the member object, with guild_id where that is not empty.
func (m *member) json(guildID string) map[string]any {
	j := m.partial()
	j["user"] = m.user.json()
	if guildID != "" {
		j["guild_id"] = guildID
	}
	return j
}

// partial is the member object without its user.
func (m *member) partial() map[string]any {
	j := map[string]any{
		"nick":                         nullable(m.nick),
		"avatar":                       nil,
		"roles":                        append([]string{}, m.roles...),
		"joined_at":                    stamp(m.joined),
		"premium_since":                nil,
		"deaf":                         false,
		"mute":                         false,
		"flags":                        0,
		"pending":                      false,
		"communication_disabled_until": nil,
	}
	if !m.until.IsZero() {
		j["communication_disabled_until"] = stamp(m.until)
	}
	return j
}

// channelJSON is the channel object as viewer sees it.
func (s *Server) channelJSON(c *channel, viewer *account) map[string]any {
	j := map[string]any{"id": c.ID, "type": c.Type, "flags": 0, "last_message_id": nil}
	if n := len(c.messages); n > 0 {
		j["last_message_id"] = c.messages[n-1].ID
	}
	if c.guild == nil {
		recipients := []any{}
		for _, u := range c.users {
			if u != viewer {
				recipients = append(recipients, u.json())
			}
		}
		j["recipients"] = recipients
		return j
	}
	overwrites := []any{}
	for _, o := range c.Overwrites {
		kind := 0
		if c.guild.roles[o.ID] == nil {
			kind = 1
		}
		overwrites = append(overwrites, map[string]any{
			"id":    o.ID,
			"type":  kind,
			"allow": strconv.FormatUint(uint64(o.Allow), 10),
			"deny":  strconv.FormatUint(uint64(o.Deny), 10),
		})
	}
	j["guild_id"] = c.GuildID
	j["name"] = c.Name
	j["position"] = slices.Index(c.guild.channels, c)
	j["permission_overwrites"] = overwrites
	j["nsfw"] = false
	j["topic"] = nil
	j["parent_id"] = nil
	j["rate_limit_per_user"] = 0
	return j
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

// guildCreate is the guild as a bot is told of it: only who asked for presences
// is told of other members.
// https://discord.com/developers/docs/events/gateway-events#guild-create
func (s *Server) guildCreate(ss *session, g *guild) map[string]any {
	j := g.json()
	channels, members := []any{}, []any{}
	for _, c := range g.channels {
		if s.may(c, ss.bot, ViewChannel) {
			channels = append(channels, s.channelJSON(c, ss.bot))
		}
	}
	for _, m := range g.ordered() {
		if m.user == ss.bot || ss.intents&IntentGuildPresences != 0 {
			members = append(members, m.json(""))
		}
	}
	j["joined_at"] = stamp(g.members[ss.bot.ID].joined)
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

// stamp is a time as Discord writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000+00:00") }

package discord

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"
)

// guilds caches the bot's guilds and their channels, from the events of Discord's gateway. A guilds is safe for
// concurrent use. discordgo's own State stores much more, and returns values while still changing these values.
type guilds struct {
	mu       sync.RWMutex
	byID     map[string]*guild
	channels map[string]channel
}

// guild is a guild, Discord's name for a server.
type guild struct {
	ID            string               `json:"id"`
	Name          string               `json:"name"`
	OwnerID       string               `json:"owner_id"`
	SystemChannel string               `json:"system_channel_id"`
	Joined        time.Time            `json:"joined_at"` // when the bot joined
	Unavailable   bool                 `json:"unavailable"`
	Roles         []role               `json:"roles"`
	Channels      []*discordgo.Channel `json:"channels"`
	Threads       []*discordgo.Channel `json:"threads"`

	roles map[string]role // by id; replaced as a whole, never changed
}

// role is the used part of a role (https://discord.com/developers/docs/topics/permissions#role-object). discordgo's own
// type has no tags.
type role struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Tags struct {
		BotID string `json:"bot_id"` // the bot that the role belongs to; empty for most roles
	} `json:"tags"`
}

// channel is a cached channel or thread.
type channel struct {
	guild, name, parent string
	kind                discordgo.ChannelType
}

// location is the cached data of a channel and its guild. Unknown parts are empty.
type location struct {
	guildID, guildName, ownerID string
	system                      string          // id of the guild's channel for system messages
	roles                       map[string]role // the guild's roles by id; read only
	name                        string          // of the channel
	parent, parentName          string          // of a thread
	thread                      bool
}

func newGuilds() *guilds { return &guilds{byID: map[string]*guild{}, channels: map[string]channel{}} }

// locate returns the location of a channel in a guild. Either id may be empty.
func (g *guilds) locate(channelID, guildID string) location {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var p location
	c, ok := g.channels[channelID]
	if ok {
		p.name = c.name
		if guildID == "" {
			guildID = c.guild
		}
		switch c.kind {
		case discordgo.ChannelTypeGuildNewsThread, discordgo.ChannelTypeGuildPublicThread, discordgo.ChannelTypeGuildPrivateThread:
			p.thread, p.parent, p.parentName = true, c.parent, g.channels[c.parent].name
		}
	}
	p.guildID = guildID
	if found := g.byID[guildID]; found != nil {
		p.guildName, p.ownerID, p.roles, p.system = found.Name, found.OwnerID, found.roles, found.SystemChannel
	}
	return p
}

// channelName returns the name of a channel or thread, or empty if the guild has no such channel. A channel of another
// guild is not named: its name may be secret.
func (g *guilds) channelName(id, guildID string) string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if c := g.channels[id]; guildID != "" && c.guild == guildID {
		return c.name
	}
	return ""
}

// update applies an event to the cache. appeared is the announced guild, or nil; opened is the new channel or thread, or
// nil. Types of events without guild data change nothing.
func (g *guilds) update(kind string, data []byte) (appeared *guild, opened *discordgo.Channel, err error) {
	switch kind {
	case "GUILD_CREATE", "GUILD_UPDATE":
		appeared, err = g.updateGuild(kind, data)
	case "GUILD_DELETE":
		err = g.deleteGuild(data)
	case "GUILD_ROLE_CREATE", "GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE":
		err = g.updateRole(data)
	case "CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE", "THREAD_CREATE", "THREAD_UPDATE", "THREAD_DELETE":
		opened, err = g.updateChannel(kind, data)
	case "THREAD_LIST_SYNC":
		err = g.addThreads(data)
	}
	return appeared, opened, err
}

// updateGuild adds or replaces a guild with its channels and threads. The result is the created guild, or nil.
func (g *guilds) updateGuild(kind string, data []byte) (*guild, error) {
	var now guild
	if err := json.Unmarshal(data, &now); err != nil {
		return nil, err
	}
	if now.Unavailable {
		return nil, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now.roles = map[string]role{}
	for _, r := range now.Roles {
		now.roles[r.ID] = r
	}
	if before := g.byID[now.ID]; before != nil && now.Roles == nil {
		now.roles = before.roles
	}
	for _, c := range slices.Concat(now.Channels, now.Threads) {
		c.GuildID = now.ID
		g.put(c)
	}
	cached := now
	cached.Channels, cached.Threads, cached.Roles = nil, nil, nil
	g.byID[now.ID] = &cached
	if kind == "GUILD_CREATE" {
		return &now, nil
	}
	return nil, nil
}

// deleteGuild removes a guild and its channels. An outage of a guild is ignored, because the guild comes back.
func (g *guilds) deleteGuild(data []byte) error {
	var gone guild
	if err := json.Unmarshal(data, &gone); err != nil || gone.Unavailable {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byID, gone.ID)
	maps.DeleteFunc(g.channels, func(_ string, c channel) bool { return c.guild == gone.ID })
	return nil
}

// updateRole adds, renames or removes a role of a guild.
func (g *guilds) updateRole(data []byte) error {
	var r struct {
		Guild   string `json:"guild_id"`
		Role    *role  `json:"role"`
		Deleted string `json:"role_id"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if in := g.byID[r.Guild]; in != nil {
		roles := maps.Clone(in.roles)
		if r.Role != nil {
			roles[r.Role.ID] = *r.Role
		} else {
			delete(roles, r.Deleted)
		}
		in.roles = roles
	}
	return nil
}

// updateChannel adds, replaces or removes a channel or thread. The result is the created channel, or nil.
func (g *guilds) updateChannel(kind string, data []byte) (*discordgo.Channel, error) {
	c := new(discordgo.Channel)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch kind {
	case "CHANNEL_DELETE", "THREAD_DELETE":
		delete(g.channels, c.ID)
		return nil, nil
	case "CHANNEL_CREATE", "THREAD_CREATE":
		g.put(c)
		return c, nil
	}
	g.put(c)
	return nil, nil
}

// addThreads adds the threads of a channel that the bot can see from now on.
func (g *guilds) addThreads(data []byte) error {
	var list struct {
		Guild   string               `json:"guild_id"`
		Threads []*discordgo.Channel `json:"threads"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range list.Threads {
		c.GuildID = list.Guild
		g.put(c)
	}
	return nil
}

// put caches a channel. The caller holds g.mu.
func (g *guilds) put(c *discordgo.Channel) {
	g.channels[c.ID] = channel{guild: c.GuildID, name: c.Name, parent: c.ParentID, kind: c.Type}
}

// holdsMessages reports whether channels of this kind contain messages.
func holdsMessages(kind discordgo.ChannelType) bool {
	switch kind {
	case discordgo.ChannelTypeGuildCategory, discordgo.ChannelTypeGuildStore, discordgo.ChannelTypeGuildDirectory,
		discordgo.ChannelTypeGuildForum, discordgo.ChannelTypeGuildMedia:
		return false
	}
	return true
}

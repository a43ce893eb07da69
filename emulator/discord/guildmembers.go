package discord

import (
	"encoding/json"
	"slices"
	"strings"
)

// Limits of a request for guild members.
// https://discord.com/developers/docs/events/gateway-events#request-guild-members
const (
	maxChunk          = 1000 // members in one event
	maxPrefixMembers  = 100  // for a name prefix
	maxRequestedUsers = 100
	maxMemberNonce    = 32 // bytes; a longer nonce is ignored
)

// memberRequest is a request for a guild's members over the gateway: all members, members with a name prefix, or members
// by id.
type memberRequest struct {
	GuildID json.RawMessage `json:"guild_id"` // one id, or an array of one id, as sent by discordgo
	Query   *string         `json:"query"`
	Limit   int             `json:"limit"`
	UserIDs json.RawMessage `json:"user_ids"` // one id or an array
	Nonce   any             `json:"nonce"`
}

// requestMembers answers a request for a guild's members.
// https://discord.com/developers/docs/events/gateway-events#request-guild-members
func (s *Server) requestMembers(c *gatewayConn, data json.RawMessage) {
	var ask memberRequest
	if json.Unmarshal(data, &ask) != nil {
		c.Close(CloseDecodeError)
		return
	}
	guilds, err := oneOrMoreIDs(ask.GuildID)
	if err != nil || len(guilds) != 1 {
		c.Close(CloseDecodeError)
		return
	}
	users, err := oneOrMoreIDs(ask.UserIDs)
	if err != nil || len(users) > maxRequestedUsers || users == nil && ask.Query == nil {
		c.Close(CloseDecodeError)
		return
	}
	ss := c.session
	g := s.guilds[guilds[0]]
	if g == nil || !ss.serves(g) {
		return
	}
	if users == nil && *ask.Query == "" && ask.Limit == 0 && ss.intents&IntentGuildMembers == 0 {
		return // a request for all members needs the intent
	}
	found, missing := []any{}, []any{}
	if users != nil {
		for _, id := range users {
			if m := g.members[id]; m != nil {
				found = append(found, m.json(""))
			} else {
				missing = append(missing, id)
			}
		}
	} else {
		found = g.search(*ask.Query, ask.Limit)
	}
	s.sendMembers(ss, g, found, missing, ask.Nonce)
}

// search returns members with a name prefix. All names have the empty prefix, and then a limit of 0 means all members.
func (g *guild) search(prefix string, limit int) []any {
	switch {
	case prefix != "":
		limit = min(limit, maxPrefixMembers)
	case limit == 0:
		limit = len(g.members)
	}
	found := []any{}
	for _, m := range g.ordered() {
		if len(found) < limit && (startsWith(m.user.Name, prefix) || startsWith(m.nick, prefix)) {
			found = append(found, m.json(""))
		}
	}
	return found
}

// sendMembers sends members in events of limited size, at least one.
// https://discord.com/developers/docs/events/gateway-events#guild-members-chunk
func (s *Server) sendMembers(ss *session, g *guild, found, missing []any, nonce any) {
	chunks := slices.Collect(slices.Chunk(found, maxChunk))
	if len(chunks) == 0 {
		chunks = [][]any{{}}
	}
	for i, members := range chunks {
		event := map[string]any{"guild_id": g.ID, "members": members, "chunk_index": i, "chunk_count": len(chunks)}
		if len(missing) > 0 {
			event["not_found"] = missing
		}
		if text, ok := nonce.(string); ok && text != "" && len(text) <= maxMemberNonce {
			event["nonce"] = text
		}
		s.send(ss, "GUILD_MEMBERS_CHUNK", event)
	}
}

func startsWith(name, query string) bool {
	return len(name) >= len(query) && strings.EqualFold(name[:len(query)], query)
}

package discord

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The HTTP API. https://discord.com/developers/docs/reference describes versions, authentication and errors of all
// endpoints; https://discord.com/developers/docs/topics/rate-limits describes limits.

// call is a request with a valid token.
type call struct {
	r   *http.Request
	bot *account
}

// answer is the result of a call: a body, or an error with Discord's code, a text and, for 50035, the invalid fields.
type answer struct {
	status int
	body   any
	code   int
	text   string
	fields map[string]any
}

func (s *Server) routeAPI(mux *http.ServeMux) {
	for pattern, f := range map[string]func(*call) answer{
		"GET /gateway/bot": s.getGatewayBot,

		"GET /users/@me":           s.getMe,
		"GET /users/{user}":        s.getUser,
		"POST /users/@me/channels": s.createDM,

		"GET /channels/{channel}":                       s.getChannel,
		"GET /channels/{channel}/messages":              s.getMessages,
		"POST /channels/{channel}/messages":             s.createMessage,
		"GET /channels/{channel}/messages/{message}":    s.getMessage,
		"PATCH /channels/{channel}/messages/{message}":  s.editMessage,
		"DELETE /channels/{channel}/messages/{message}": s.deleteMessage,
		"POST /channels/{channel}/messages/bulk-delete": s.bulkDelete,
		"POST /channels/{channel}/typing":               s.typing,

		"GET /guilds/{guild}":                                s.getGuild,
		"GET /guilds/{guild}/channels":                       s.getChannels,
		"GET /guilds/{guild}/roles":                          s.getRoles,
		"GET /guilds/{guild}/members":                        s.getMembers,
		"GET /guilds/{guild}/members/{user}":                 s.getMember,
		"PATCH /guilds/{guild}/members/{user}":               s.editMember,
		"DELETE /guilds/{guild}/members/{user}":              s.removeMember,
		"PUT /guilds/{guild}/members/{user}/roles/{role}":    s.addMemberRole,
		"DELETE /guilds/{guild}/members/{user}/roles/{role}": s.removeMemberRole,
		"GET /guilds/{guild}/bans":                           s.getBans,
		"GET /guilds/{guild}/bans/{user}":                    s.getBan,
		"PUT /guilds/{guild}/bans/{user}":                    s.createBan,
		"DELETE /guilds/{guild}/bans/{user}":                 s.removeBan,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+apiPath+"/{version}"+path, func(w http.ResponseWriter, r *http.Request) {
			if version(w, r) {
				s.serve(w, r, pattern, f)
			}
		})
	}
	mux.HandleFunc("GET "+apiPath+"/{version}/gateway", func(w http.ResponseWriter, r *http.Request) {
		if version(w, r) {
			writeJSON(w, http.StatusOK, map[string]any{"url": s.GatewayURL()})
		}
	})
}

// version refuses unsupported API versions. https://discord.com/developers/docs/reference#api-versioning
func version(w http.ResponseWriter, r *http.Request) bool {
	switch v := r.PathValue("version"); {
	case v == "v9" || v == "v10":
		return true
	case strings.HasPrefix(v, "v"):
		writeError(w, refuse(http.StatusBadRequest, 50041, "Invalid API version"))
	default:
		writeError(w, notFound)
	}
	return false
}

var notFound = refuse(http.StatusNotFound, 0, "404: Not Found")

// unserved answers requests without a route.
func unserved(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" {
				writeError(w, refuse(http.StatusMethodNotAllowed, 0, "405: Method Not Allowed"))
				return
			}
		}
		writeError(w, notFound)
	}
}

// serve checks the headers and the rate limits of a call and runs f. The whole call is atomic.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, pattern string, f func(*call) answer) {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	s.lock()
	defer s.unlock()
	bot := s.tokens[token]
	if kind != "Bot" || bot == nil {
		writeError(w, refuse(http.StatusUnauthorized, 0, "401: Unauthorized"))
		return
	}
	if s.limited(w, r, pattern, bot) {
		return
	}
	for _, name := range []string{"channel", "message", "guild", "user", "role"} {
		if id := r.PathValue(name); id != "" && id != "@me" {
			if _, err := snowflake(id); err != nil {
				writeError(w, invalid(name+"_id", "NUMBER_TYPE_COERCE", fmt.Sprintf("Value %q is not snowflake.", id)))
				return
			}
		}
	}
	switch a := f(&call{r, bot}); {
	case a.status >= http.StatusBadRequest:
		writeError(w, a)
	case a.body == nil:
		w.WriteHeader(a.status)
	default:
		writeJSON(w, a.status, a.body)
	}
}

// limited counts a request. If a limit is exceeded, it answers the request and returns true.
func (s *Server) limited(w http.ResponseWriter, r *http.Request, pattern string, bot *account) bool {
	now, limits := s.now(), s.options.limits
	if limits.Global.N > 0 {
		if ok, _, reset := s.bucket(bot.ID).take(now, limits.Global); !ok {
			writeLimited(w, reset, true)
			return true
		}
	}
	window := limits.Routes
	if pattern == "POST /channels/{channel}/messages" {
		window = limits.Messages
	}
	if window.N == 0 {
		return false
	}
	hash := fnv.New64a()
	hash.Write([]byte(pattern))
	name := strconv.FormatUint(hash.Sum64(), 16)
	ok, left, reset := s.bucket(bot.ID+" "+name+" "+r.PathValue("channel")+r.PathValue("guild")).take(now, window)
	h := w.Header()
	h.Set("X-RateLimit-Limit", strconv.Itoa(window.N))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(left))
	h.Set("X-RateLimit-Reset", strconv.FormatFloat(float64(now.Add(reset).UnixMilli())/1000, 'f', 3, 64))
	h.Set("X-RateLimit-Reset-After", strconv.FormatFloat(milliseconds(reset), 'f', 3, 64))
	h.Set("X-RateLimit-Bucket", name)
	if !ok {
		writeLimited(w, reset, false)
	}
	return !ok
}

func (s *Server) bucket(key string) *bucket {
	b := s.buckets[key]
	if b == nil {
		b = &bucket{}
		s.buckets[key] = b
	}
	return b
}

// writeError writes an error in Discord's format. https://discord.com/developers/docs/reference#error-messages
func writeError(w http.ResponseWriter, a answer) {
	body := map[string]any{"message": a.text, "code": a.code}
	if a.fields != nil {
		body["errors"] = a.fields
	}
	writeJSON(w, a.status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A disconnected client is not an error of the server.
	_ = json.NewEncoder(w).Encode(body)
}

func success(body any) answer { return answer{status: http.StatusOK, body: body} }

var done = answer{status: http.StatusNoContent}

func refuse(status, code int, text string) answer {
	return answer{status: status, code: code, text: text}
}

// Errors of many endpoints. https://discord.com/developers/docs/topics/opcodes-and-status-codes#json
var (
	unknownChannel     = refuse(http.StatusNotFound, 10003, "Unknown Channel")
	unknownGuild       = refuse(http.StatusNotFound, 10004, "Unknown Guild")
	unknownMember      = refuse(http.StatusNotFound, 10007, "Unknown Member")
	unknownMessage     = refuse(http.StatusNotFound, 10008, "Unknown Message")
	unknownRole        = refuse(http.StatusNotFound, 10011, "Unknown Role")
	unknownUser        = refuse(http.StatusNotFound, 10013, "Unknown User")
	unknownBan         = refuse(http.StatusNotFound, 10026, "Unknown Ban")
	missingAccess      = refuse(http.StatusForbidden, 50001, "Missing Access")
	missingPermissions = refuse(http.StatusForbidden, 50013, "Missing Permissions")
	invalidJSON        = refuse(http.StatusBadRequest, 50109, "The request body contains invalid JSON.")
)

// invalid refuses a form because of a field, or because of the whole form if field is empty.
func invalid(field, code, text string) answer {
	a := refuse(http.StatusBadRequest, 50035, "Invalid Form Body")
	a.fields = map[string]any{}
	at := a.fields
	for step := range strings.SplitSeq(field, ".") {
		if step == "" {
			continue
		}
		next := map[string]any{}
		at[step], at = next, next
	}
	at["_errors"] = []any{map[string]any{"code": code, "message": text}}
	return a
}

func tooLong(field string, most int) answer {
	return invalid(field, "BASE_TYPE_MAX_LENGTH", fmt.Sprintf("Must be %d or fewer in length.", most))
}

func outOfRange(field string, least, most int) answer {
	return invalid(field, "NUMBER_TYPE_RANGE", fmt.Sprintf("int value should be between %d and %d.", least, most))
}

// ok reports whether the call was not refused.
func (a answer) ok() bool { return a.status < http.StatusBadRequest }

// decode decodes a JSON body. The body may be absent.
func (c *call) decode(v any) answer {
	if c.r.ContentLength == 0 {
		return answer{}
	}
	if kind, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		return invalid("_content_type", "CONTENT_TYPE_INVALID", `Expected "Content-Type" header to be one of {'application/json'}.`)
	}
	err := json.NewDecoder(c.r.Body).Decode(v)
	if wrong, ok := err.(*json.UnmarshalTypeError); ok {
		return invalid(wrong.Field, "BASE_TYPE_BAD_TYPE", "Could not interpret this value: "+wrong.Value)
	}
	if err != nil {
		return invalidJSON
	}
	return answer{}
}

// number returns a query parameter between least and most, or otherwise if the parameter is absent.
func (c *call) number(name string, otherwise, least, most int) (int, answer) {
	text := c.r.URL.Query().Get(name)
	if text == "" {
		return otherwise, answer{}
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, invalid(name, "NUMBER_TYPE_COERCE", fmt.Sprintf("Value %q is not int.", text))
	}
	if n < least || n > most {
		return 0, outOfRange(name, least, most)
	}
	return n, answer{}
}

// snowflake returns a query parameter with a snowflake, or 0 if the parameter is absent.
func (c *call) snowflake(name string) (uint64, answer) {
	text := c.r.URL.Query().Get(name)
	if text == "" {
		return 0, answer{}
	}
	n, err := snowflake(text)
	if err != nil {
		return 0, invalid(name, "NUMBER_TYPE_COERCE", fmt.Sprintf("Value %q is not snowflake.", text))
	}
	return n, answer{}
}

// maxReason is the largest number of characters in an audit log reason.
const maxReason = 512

// reason returns the audit log reason of a call. https://discord.com/developers/docs/resources/audit-log
func (c *call) reason() (string, answer) {
	text := c.r.Header.Get("X-Audit-Log-Reason")
	if plain, err := url.PathUnescape(text); err == nil {
		text = plain
	}
	if utf8.RuneCountInString(text) > maxReason {
		return "", tooLong("reason", maxReason)
	}
	return text, answer{}
}

// channelFor returns the channel of the path, if the bot has all permissions of p in the channel.
func (s *Server) channelFor(c *call, p Permissions) (*channel, answer) {
	ch := s.channels[c.r.PathValue("channel")]
	switch {
	case ch == nil:
		return nil, unknownChannel
	case ch.guild == nil && !slices.Contains(ch.users, c.bot):
		return nil, unknownChannel
	case !s.hasPermission(ch, c.bot, ViewChannel):
		return nil, missingAccess
	case !s.hasPermission(ch, c.bot, p):
		return nil, missingPermissions
	}
	return ch, answer{}
}

// guildFor returns the guild of the path and the bot as a member, if the bot has all permissions of p in the guild.
func (s *Server) guildFor(c *call, p Permissions) (*guild, *member, answer) {
	g := s.guilds[c.r.PathValue("guild")]
	if g == nil {
		return nil, nil, unknownGuild
	}
	me := g.members[c.bot.ID]
	switch {
	case me == nil:
		return nil, nil, missingAccess
	case s.permissions(me)&p != p:
		return nil, nil, missingPermissions
	}
	return g, me, answer{}
}

// getGatewayBot implements https://discord.com/developers/docs/events/gateway#get-gateway-bot
func (s *Server) getGatewayBot(c *call) answer {
	limits := s.options.limits
	left, full := c.bot.starts.Left(s.now(), limits.Sessions)
	return success(map[string]any{
		"url":    s.GatewayURL(),
		"shards": 1,
		"session_start_limit": map[string]any{
			"total":           limits.Sessions.N,
			"remaining":       left,
			"reset_after":     full.Milliseconds(),
			"max_concurrency": max(limits.Identifies.N, 1),
		},
	})
}

// getMe implements https://discord.com/developers/docs/resources/user#get-current-user
func (s *Server) getMe(c *call) answer {
	me := c.bot.json()
	me["verified"], me["mfa_enabled"], me["email"], me["flags"] = true, false, nil, 0
	return success(me)
}

// getUser implements https://discord.com/developers/docs/resources/user#get-user
func (s *Server) getUser(c *call) answer {
	u := s.users[c.r.PathValue("user")]
	if u == nil {
		return unknownUser
	}
	return success(u.json())
}

// createDM implements https://discord.com/developers/docs/resources/user#create-dm
func (s *Server) createDM(c *call) answer {
	var form struct {
		RecipientID jsonID `json:"recipient_id"`
	}
	if a := c.decode(&form); !a.ok() {
		return a
	}
	id := string(form.RecipientID)
	if id == "" {
		return invalid("recipient_id", "BASE_TYPE_REQUIRED", "This field is required")
	}
	if _, err := snowflake(id); err != nil {
		return invalid("recipient_id", "NUMBER_TYPE_COERCE", fmt.Sprintf("Value %q is not snowflake.", id))
	}
	ch, err := s.dm(id, c.bot.ID)
	if err != nil {
		return refuse(http.StatusBadRequest, 50033, "Invalid Recipient(s)")
	}
	return success(s.channelJSON(ch, c.bot))
}

package twitch

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The Helix API. https://dev.twitch.tv/docs/api/guide/ describes headers, rate limits and errors of all endpoints.

// call is a Helix request with a valid token.
type call struct {
	r     *http.Request
	token *Token
	user  *account // nil for an app access token
}

// answer is the result of a call: a body, or an error with a message.
type answer struct {
	status int
	body   any
	text   string
}

func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }

func (s *Server) routeHelix(mux *http.ServeMux) {
	for pattern, f := range map[string]func(*call) answer{
		"GET /users":                     s.getUsers,
		"GET /channels":                  s.getChannels,
		"GET /streams":                   s.getStreams,
		"POST /chat/messages":            s.sendChatMessage,
		"POST /whispers":                 s.sendWhisper,
		"POST /moderation/bans":          s.banUser,
		"DELETE /moderation/bans":        s.unbanUser,
		"DELETE /moderation/chat":        s.deleteChat,
		"POST /eventsub/subscriptions":   s.createSubscription,
		"GET /eventsub/subscriptions":    s.getSubscriptions,
		"DELETE /eventsub/subscriptions": s.deleteSubscription,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+helixPath+path, func(w http.ResponseWriter, r *http.Request) { s.helix(w, r, f) })
	}
	mux.HandleFunc(helixPath+"/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "")
	})
}

// helix checks the headers and the rate limit of a call and runs f. The whole call is atomic.
func (s *Server) helix(w http.ResponseWriter, r *http.Request, f func(*call) answer) {
	access, ok := authorization(r, "Bearer")
	if !ok {
		writeError(w, http.StatusUnauthorized, "OAuth token is missing")
		return
	}
	clientID := r.Header.Get("Client-Id")
	if clientID == "" {
		writeError(w, http.StatusUnauthorized, "Client ID is missing")
		return
	}
	s.lock()
	defer s.unlock()
	t := s.valid(access)
	if t == nil {
		writeError(w, http.StatusUnauthorized, "Invalid OAuth token")
		return
	}
	if t.ClientID != clientID {
		writeError(w, http.StatusUnauthorized, "Client ID and OAuth token do not match")
		return
	}
	if limit := s.options.limits.Helix; limit.N > 0 {
		key := t.ClientID + " " + t.UserID
		if s.points[key] == nil {
			s.points[key] = &bucket{}
		}
		ok, left, reset := s.points[key].take(s.now(), limit)
		w.Header().Set("Ratelimit-Limit", strconv.Itoa(limit.N))
		w.Header().Set("Ratelimit-Remaining", strconv.Itoa(left))
		// Rounded up, so that a client has points after waiting.
		w.Header().Set("Ratelimit-Reset", strconv.FormatInt(reset.Add(time.Second-1).Unix(), 10))
		if !ok {
			writeError(w, http.StatusTooManyRequests, "Rate limit exceeded")
			return
		}
	}
	a := f(&call{r, t, s.users[t.UserID]})
	switch {
	case a.status >= 400:
		writeError(w, a.status, a.text)
	case a.body == nil:
		w.WriteHeader(a.status)
	default:
		writeJSON(w, a.status, a.body)
	}
}

// writeError writes an error in Helix's format.
func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]any{"error": http.StatusText(status), "status": status, "message": text})
}

func success(body any) answer               { return answer{status: http.StatusOK, body: body} }
func refuse(status int, text string) answer { return answer{status: status, text: text} }
func badRequest(text string) answer         { return refuse(http.StatusBadRequest, text) }
func missingParameter(what string) answer {
	return badRequest(`Missing required parameter "` + what + `"`)
}
func data[T any](items []T) map[string][]T { return map[string][]T{"data": append([]T{}, items...)} }
func missingScope(scopes ...string) answer {
	return refuse(http.StatusUnauthorized, "Missing scope: "+strings.Join(scopes, " or "))
}

// userOnly refuses an app access token, and a user token with none of the scopes.
func (c *call) userOnly(scopes ...string) (answer, bool) {
	if c.user == nil {
		return refuse(http.StatusUnauthorized, "Missing User OAUTH Token"), false
	}
	if len(scopes) > 0 && !c.token.has(scopes...) {
		return missingScope(scopes...), false
	}
	return answer{}, true
}

func (c *call) decode(v any) bool { return json.NewDecoder(c.r.Body).Decode(v) == nil }

// findUsers returns the existing accounts with these ids and logins, in order and without repetition.
func (s *Server) findUsers(ids, logins []string) []*account {
	var found []*account
	add := func(a *account) {
		if a != nil && !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	for _, id := range ids {
		add(s.users[id])
	}
	for _, login := range logins {
		add(s.logins[strings.ToLower(login)])
	}
	return found
}

// maxNames bounds the users or channels of one query.
const maxNames = 100

// getUsers implements https://dev.twitch.tv/docs/api/reference/#get-users
func (s *Server) getUsers(c *call) answer {
	q := c.r.URL.Query()
	ids, logins := q["id"], q["login"]
	switch {
	case len(ids)+len(logins) > maxNames:
		return badRequest("The combined number of id and login query parameters must not exceed 100.")
	case len(ids)+len(logins) == 0 && c.user == nil:
		return badRequest("The id or login query parameter is required unless the request uses a user access token.")
	case len(ids)+len(logins) == 0:
		ids = []string{c.user.ID}
	}
	var users []map[string]any
	for _, a := range s.findUsers(ids, logins) {
		u := map[string]any{
			"id":                a.ID,
			"login":             a.Login,
			"display_name":      a.DisplayName,
			"type":              "",
			"broadcaster_type":  "",
			"description":       "",
			"profile_image_url": "",
			"offline_image_url": "",
			"view_count":        0,
			"created_at":        a.CreatedAt.UTC().Format(time.RFC3339),
		}
		if a == c.user && c.token.has("user:read:email") {
			u["email"] = a.Email
		}
		users = append(users, u)
	}
	return success(data(users))
}

// getChannels implements https://dev.twitch.tv/docs/api/reference/#get-channel-information
func (s *Server) getChannels(c *call) answer {
	ids := c.r.URL.Query()["broadcaster_id"]
	if len(ids) == 0 {
		return missingParameter("broadcaster_id")
	}
	if len(ids) > maxNames {
		return badRequest("The number of broadcaster_id query parameters must not exceed 100.")
	}
	var channels []map[string]any
	for _, a := range s.findUsers(ids, nil) {
		channels = append(channels, map[string]any{
			"broadcaster_id":                a.ID,
			"broadcaster_login":             a.Login,
			"broadcaster_name":              a.DisplayName,
			"broadcaster_language":          "en",
			"game_id":                       "",
			"game_name":                     a.room.game,
			"title":                         a.room.title,
			"delay":                         0,
			"tags":                          []string{},
			"content_classification_labels": []string{},
			"is_branded_content":            false,
		})
	}
	return success(data(channels))
}

// getStreams implements https://dev.twitch.tv/docs/api/reference/#get-streams
func (s *Server) getStreams(c *call) answer {
	q := c.r.URL.Query()
	ids, logins := q["user_id"], q["user_login"]
	if len(ids) > maxNames || len(logins) > maxNames {
		return badRequest("The number of user_id or user_login query parameters must not exceed 100.")
	}
	accounts := s.findUsers(ids, logins)
	if len(ids)+len(logins) == 0 {
		for _, a := range s.users {
			accounts = append(accounts, a)
		}
		// The most watched come first.
		slices.SortFunc(accounts, func(a, b *account) int {
			return b.room.viewers() - a.room.viewers()
		})
	}
	var streams []map[string]any
	for _, a := range accounts {
		st := a.room.stream
		if st == nil || len(streams) == maxNames {
			continue
		}
		streams = append(streams, map[string]any{
			"id":            st.ID,
			"user_id":       a.ID,
			"user_login":    a.Login,
			"user_name":     a.DisplayName,
			"game_id":       "",
			"game_name":     st.Game,
			"type":          "live",
			"title":         st.Title,
			"tags":          []string{},
			"tag_ids":       []string{},
			"viewer_count":  st.Viewers,
			"started_at":    st.StartedAt.UTC().Format(time.RFC3339),
			"language":      "en",
			"thumbnail_url": "",
			"is_mature":     false,
		})
	}
	return success(map[string]any{"data": append([]map[string]any{}, streams...), "pagination": map[string]any{}})
}

func (r *room) viewers() int {
	if r.stream == nil {
		return 0
	}
	return r.stream.Viewers
}

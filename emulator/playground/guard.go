package playground

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/gateway/bearer"
	"parley.internal/gateway/loopback"
	"parley.internal/shared/credential"
)

// refusal is the error of a refused request, and the body of the response.
type refusal struct {
	status int
	Reason string `json:"error"`
	Field  string `json:"field"`
}

func (r *refusal) Error() string { return strings.TrimPrefix(r.Field+": "+r.Reason, ": ") }

func refuse(status int, field, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...), field}
}

// invalid refuses a well-formed body with a wrong value.
func invalid(field, format string, args ...any) *refusal {
	return refuse(http.StatusUnprocessableEntity, field, format, args...)
}

// refused makes a refusal from a fake's error.
func refused(field string, err error) *refusal {
	reason := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "twitch: "), "discord: ")
	return invalid(field, "%s", reason)
}

// localOnly keeps out pages of other origins. Browsers name the origin of a request
// (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site). A foreign page can also resolve its
// own name to this machine and so get the same origin (package loopback), so only the names of this machine are served.
func localOnly(h http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback.IsHost(r.Host) {
			writeRefusal(w, refuse(http.StatusMisdirectedRequest, "Host", "use localhost or a loopback address as the host"))
			return
		}
		if err := origins.Check(r); err != nil {
			writeRefusal(w, refuse(http.StatusForbidden, "Origin", "%v", err))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// requireToken passes requests with the token in the Authorization header to h. Without a token nobody passes.
func requireToken(h http.Handler, token credential.Secret) http.Handler {
	return bearer.Require(token, h, func(w http.ResponseWriter, _ *http.Request) {
		writeRefusal(w, refuse(http.StatusUnauthorized, "Authorization", "must be Bearer TOKEN, with the token of this start"))
	})
}

// maxBody is the largest size of a body in bytes. The longest text with every character escaped has 48 kB.
const maxBody = 64 << 10

// decode reads a body, which is one JSON object, into v. Unknown, repeated and mistyped fields are errors with the path of
// the field, such as "attachments.0.size". Names of fields are case-sensitive.
func decode(r *http.Request, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "Content-Type", "must be application/json")
	}
	data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			return refuse(http.StatusRequestEntityTooLarge, "body", "is longer than %d bytes", large.Limit)
		}
		return refuse(http.StatusBadRequest, "body", "reading failed: %v", err)
	}
	if jsontext.Value(data).Kind() != '{' {
		return refuse(http.StatusBadRequest, "body", "is not a JSON object")
	}
	err = json.Unmarshal(data, v, json.RejectUnknownMembers(true))
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return refuse(http.StatusBadRequest, fieldPath(semantic.JSONPointer), "unknown field")
	case errors.As(err, &semantic) && semantic.GoType != nil:
		return refuse(http.StatusBadRequest, fieldPath(semantic.JSONPointer), "a JSON %s is not a %s", semantic.JSONKind, semantic.GoType.Kind())
	case errors.As(err, &syntactic):
		return refuse(http.StatusBadRequest, fieldPath(syntactic.JSONPointer), "%v", syntactic.Err)
	}
	return refuse(http.StatusBadRequest, "body", "%v", err)
}

// fieldPath converts a JSON pointer: "/attachments/0/size" becomes "attachments.0.size", and the whole value "body".
func fieldPath(p jsontext.Pointer) string {
	var names []string
	for name := range p.Tokens() {
		names = append(names, name)
	}
	if names == nil {
		return "body"
	}
	return strings.Join(names, ".")
}

func writeRefusal(w http.ResponseWriter, no *refusal) { writeJSON(w, no.status, no) }

func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A disconnected client is not an error.
	_ = json.MarshalWrite(w, v)
}

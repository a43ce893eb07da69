package playground_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"parley.internal/emulator/playground"
	"parley.internal/shared/credential"
)

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	rec := httptest.NewRecorder()
	playground.New(credential.Secret{}, nil, nil).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost:8080"+path, nil))
	return rec
}

func TestPageAndItsFilesAreServed(t *testing.T) {
	for path, kind := range map[string]string{"/": "text/html", "/playground.css": "text/css", "/playground.js": "text/javascript"} {
		rec := get(t, path)
		if got := rec.Header().Get("Content-Type"); rec.Code != 200 || !strings.HasPrefix(got, kind) || rec.Body.Len() == 0 {
			t.Errorf("%s: %d, %s, %d bytes", path, rec.Code, got, rec.Body.Len())
		}
		policy := rec.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	for _, path := range []string{"/playground.go", "/nothing", "/x/../playground.go"} {
		if rec := get(t, path); rec.Code == 200 {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
}

// The page does not rely on the policy: it has no inline code and no code of other origins. Addresses are relative, so
// that the page works under any prefix.
func TestPageHasNoInlineOrForeignCode(t *testing.T) {
	html := get(t, "/").Body.String()
	for _, pattern := range []string{`<style`, ` style=`, ` on[a-z]+=`, `<script>`, `(src|href)="((https?:)?//|/)`} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page contains %q", found)
		}
	}
	js := get(t, "/playground.js").Body.String()
	for _, sink := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "fetch('/", "EventSource('/"} {
		if strings.Contains(js, sink) {
			t.Errorf("the script contains %q", sink)
		}
	}
}

func TestEveryControlHasALabel(t *testing.T) {
	html := get(t, "/").Body.String()
	controls := regexp.MustCompile(`<(?:input|select|textarea) id="([^"]+)"`).FindAllStringSubmatch(html, -1)
	if len(controls) == 0 {
		t.Error("the page has no control")
	}
	for _, m := range controls {
		if !strings.Contains(html, `<label for="`+m[1]+`"`) {
			t.Errorf("%s has no label", m[1])
		}
	}
	for _, want := range []string{`role="log"`, `role="status"`, `role="alert"`, `lang="en"`, `<nav id="places" aria-label=`} {
		if !strings.Contains(html, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	// The script finds its elements by id.
	js := get(t, "/playground.js").Body.String()
	for _, m := range regexp.MustCompile(`\$\('([a-z-]+)'\)`).FindAllStringSubmatch(js, -1) {
		if !strings.Contains(html, `id="`+m[1]+`"`) {
			t.Errorf("the page has no element %s, which the script uses", m[1])
		}
	}
}

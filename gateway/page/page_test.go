package page_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"parley.internal/gateway/page"
)

func get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	page.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	body, err := io.ReadAll(rec.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Result(), string(body)
}

func TestPageAndFilesAreServed(t *testing.T) {
	for path, kind := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"} {
		resp, body := get(t, path)
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || body == "" {
			t.Errorf("%s: %s, %s, %d bytes", path, resp.Status, resp.Header.Get("Content-Type"), len(body))
		}
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	for _, path := range []string{"/page.go", "/nothing", "/../page.go"} {
		if resp, _ := get(t, path); resp.StatusCode != 404 {
			t.Errorf("%s: %s; want 404", path, resp.Status)
		}
	}
}

// The policy would block inline code and foreign hosts; the page must not depend on them.
func TestPageHasNoInlineCodeAndNoForeignHosts(t *testing.T) {
	_, html := get(t, "/")
	for _, pattern := range []string{`<style`, ` style=`, ` on[a-z]+=`, `<script>`, `(src|href)="(https?:)?//`} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page contains %q", found)
		}
	}
	_, js := get(t, "/page.js")
	for _, sink := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "?token"} {
		if strings.Contains(js, sink) {
			t.Errorf("the script contains %q", sink)
		}
	}
}

func TestEveryControlHasALabel(t *testing.T) {
	_, html := get(t, "/")
	for _, m := range regexp.MustCompile(`<(?:input|select|textarea) id="([^"]+)"`).FindAllStringSubmatch(html, -1) {
		if !strings.Contains(html, `<label for="`+m[1]+`"`) {
			t.Errorf("%s has no label", m[1])
		}
	}
	for _, want := range []string{`role="log"`, `role="status"`, `role="alert"`, `lang="en"`} {
		if !strings.Contains(html, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

func ExampleHandler() {
	rec := httptest.NewRecorder()
	page.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(rec.Code, rec.Header().Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}

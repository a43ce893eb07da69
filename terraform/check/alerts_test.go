package check

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The filters of the log alerts must match the log messages of the code. An alert for a renamed message would never fire.
func TestLogAlertsMatchTheMessagesOfTheCode(t *testing.T) {
	d := full(t)
	filters := map[string]string{}
	for _, r := range d.all("google_monitoring_alert_policy") {
		if f := r.text("conditions.0.condition_matched_log.0.filter"); f != "" {
			filters[r.Address] = f
		}
	}
	for _, want := range []string{"google_monitoring_alert_policy.gateway_cut_off[0]", "google_monitoring_alert_policy.platform[0]"} {
		if filters[want] == "" {
			t.Errorf("%s reads no log: %v", want, slices.Sorted(maps.Keys(filters)))
		}
	}
	severitiesOf := logged(t, "gateway", "functions/whisper", "shared")
	for address, filter := range filters {
		_, list, _ := strings.Cut(filter, "jsonPayload.message=(")
		messages := regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(list, -1)
		if len(messages) == 0 {
			t.Errorf("the filter of %s has no message: %s", address, filter)
		}
		for _, m := range messages {
			levels, ok := severitiesOf[m[1]]
			if !ok {
				t.Errorf("%s looks for %q, but the code has no such log message", address, m[1])
				continue
			}
			if strings.Contains(filter, "severity=ERROR") && !slices.Contains(levels, "ERROR") ||
				strings.Contains(filter, "severity>=WARNING") && !slices.Contains(levels, "ERROR") && !slices.Contains(levels, "WARNING") {
				t.Errorf("%s looks for %q, but its severities are %v", address, m[1], levels)
			}
		}
	}
}

// A metric of failures has no data without failures, so an incident needs auto_close to end. The alert for a missing gateway
// is the exception: missing data is its condition.
func TestIncidentsOfFailureAlertsEnd(t *testing.T) {
	for _, r := range full(t).all("google_monitoring_alert_policy") {
		missing := r.text("conditions.0.condition_threshold.0.evaluation_missing_data") == "EVALUATION_MISSING_DATA_ACTIVE"
		if end := r.text("alert_strategy.0.auto_close"); (end == "") != missing {
			t.Errorf("%s: auto_close = %q", r.Address, end)
		}
	}
}

// logged returns the log messages of the code in these folders, with the severities of each message.
func logged(t *testing.T, folders ...string) map[string][]string {
	t.Helper()
	severities := map[string][]string{"ErrorContext": {"ERROR"}, "WarnContext": {"WARNING"}, "Log": {"ERROR", "WARNING"}}
	found := map[string][]string{}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(folder)), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				f, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || severities[f.Sel.Name] == nil {
					return true
				}
				for _, arg := range call.Args[:min(3, len(call.Args))] { // after the context and the optional level
					if text, ok := arg.(*ast.BasicLit); ok && text.Kind == token.STRING {
						if message, err := strconv.Unquote(text.Value); err == nil {
							found[message] = append(found[message], severities[f.Sel.Name]...)
						}
						break
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// The metric of refused requests must match the log message of the code. A metric of a renamed message would stay empty.
func TestMetricOfRefusedRequestsMatchesTheLog(t *testing.T) {
	filter := full(t).one(t, "google_logging_metric.refused_requests").text("filter")
	_, rest, _ := strings.Cut(filter, `jsonPayload.message="`)
	message, _, _ := strings.Cut(rest, `"`)
	if levels := logged(t, "functions/enrichment")[message]; !slices.Equal(levels, []string{"WARNING"}) || !strings.Contains(filter, "severity=WARNING") {
		t.Errorf("the filter %s; the severities of %q in the code: %v", filter, message, levels)
	}
}

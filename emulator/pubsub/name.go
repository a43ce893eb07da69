package pubsub

import (
	"regexp"
	"sort"
	"strings"
)

// Names of resources: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names.

// deletedTopic is the topic name in a subscription of a deleted topic.
const deletedTopic = "_deleted-topic_"

var (
	resourceName = regexp.MustCompile(`^projects/([^/]+)/(topics|subscriptions|snapshots)/([A-Za-z][A-Za-z0-9\-_.~+%]{2,254})$`)
	projectName  = regexp.MustCompile(`^projects/[^/]+$`)
)

// checkName checks the full name of a resource. kind is "topics" or "subscriptions".
func checkName(kind, name string) error {
	m := resourceName.FindStringSubmatch(name)
	if m == nil || m[2] != kind || strings.HasPrefix(m[3], "goog") {
		return invalid("Invalid [%s] name: (name=%s)", kind, name)
	}
	return nil
}

// splitName returns the project and the last segment of a valid name.
func splitName(name string) (project, id string) {
	parts := strings.Split(name, "/")
	return parts[1], parts[3]
}

// maxPage is the largest and the default page size of List calls.
const maxPage = 1000

// page returns the names of one page, sorted, and the token of the next page. A token is the last name of a page.
func page(names []string, size int32, token string) (cut []string, next string, err error) {
	if size < 0 {
		return nil, "", invalid("page_size: %d is negative", size)
	}
	if size == 0 || size > maxPage {
		size = maxPage
	}
	sort.Strings(names)
	from := sort.Search(len(names), func(i int) bool { return names[i] > token })
	names = names[from:]
	if len(names) > int(size) {
		return names[:size], names[size-1], nil
	}
	return names, "", nil
}

// listed returns the names below a project. The error is INVALID_ARGUMENT for a bad project name.
func listed[T any](project string, all map[string]T) ([]string, error) {
	if !projectName.MatchString(project) {
		return nil, invalid("Invalid [projects] name: (name=%s)", project)
	}
	var names []string
	for name := range all {
		if strings.HasPrefix(name, project+"/") {
			names = append(names, name)
		}
	}
	return names, nil
}

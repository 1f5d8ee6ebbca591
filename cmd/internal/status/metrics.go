// SPDX-License-Identifier: Apache-2.0

package status

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"bfs/cmd/internal/config"
)

// Metrics asks one replica for its metrics, and returns those without labels.
func Metrics(ctx context.Context, g *config.Group, i int) (map[string]float64, error) {
	page, err := get(ctx, newClient(), g.Admin[i], "/metrics")
	if err != nil {
		return nil, err
	}
	defer page.Close()
	return parseMetrics(io.LimitReader(page, maxAnswer))
}

// parseMetrics reads lines of the form NAME VALUE, and leaves out comments and names with labels.
func parseMetrics(page io.Reader) (map[string]float64, error) {
	all := map[string]float64{}
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || name == "#" || strings.Contains(name, "{") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", name, err)
		}
		all[name] = v
	}
	return all, lines.Err()
}

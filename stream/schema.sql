-- The views that users query: their names and columns are the promise, tables may change.
-- Tables (`<cube>_cube`) are made from `messages.CUBES` before this runs. FINAL leaves the newest
-- version of every row, sum() adds the blocks up. A ratio without a denominator is NULL.
-- {db} is the database. Statements end with a semicolon at the end of a line.

-- Per second, arm, surface and position; feedback counts in its own second.
CREATE OR REPLACE VIEW {db}.ctr AS
SELECT
    time, arm, surface, position, impressions, clicks, carts, purchases, revenue,
    clicks / nullIf(impressions, 0) AS ctr,
    carts / nullIf(clicks, 0) AS add_to_cart_rate,
    purchases / nullIf(clicks, 0) AS cvr
FROM (
    SELECT
        second AS time, arm, surface, position,
        sum(c.impressions) AS impressions, sum(c.clicks) AS clicks, sum(c.carts) AS carts,
        sum(c.purchases) AS purchases, sum(c.revenue) AS revenue
    FROM {db}.ctr_cube AS c FINAL
    GROUP BY second, arm, surface, position
);

-- Per minute, arm and item.
CREATE OR REPLACE VIEW {db}.items AS
SELECT
    toStartOfMinute(second) AS time, arm, item_id,
    sum(i.impressions) AS impressions, sum(i.clicks) AS clicks, sum(i.carts) AS carts,
    sum(i.purchases) AS purchases, sum(i.revenue) AS revenue
FROM {db}.items_cube AS i FINAL
GROUP BY time, arm, item_id;

-- Items there are: what rank last reported (gauge `catalogue`), else those ever counted.
CREATE OR REPLACE VIEW {db}.catalogue AS
SELECT if(reported > 0, reported, counted) AS size
FROM (
    SELECT toUInt64(argMax(value, second)) AS reported FROM {db}.gauges_cube FINAL WHERE gauge = 'catalogue'
) AS r
CROSS JOIN (SELECT uniqExact(item_id) AS counted FROM {db}.items_cube) AS c;

-- Per minute and arm. intra_list_distance: share of pairs within a list that differ in category;
-- novelty: mean self-information of an item, bits; young: share of items less than a minute old.
-- Of the impressions over the n items shown: coverage (n over the catalogue, or over everything ever
-- counted where nobody reports the catalogue's size), entropy (bits), Gini (0 all items alike, 1 one
-- item has them all): 2 sum(rank x shown) / (n sum(shown)) - (n + 1) / n, shown ascending.
CREATE OR REPLACE VIEW {db}.diversity AS
SELECT
    time, arm, l.lists AS lists, l.items AS items, l.pairs AS pairs, l.apart AS apart,
    l.apart / nullIf(l.pairs, 0) AS intra_list_distance,
    l.surprise / nullIf(l.items, 0) AS novelty,
    l.young / nullIf(l.items, 0) AS young,
    length(shown) AS items_shown,
    items_shown / nullIf((SELECT size FROM {db}.catalogue), 0) AS coverage,
    if(items_shown = 0, NULL, -arraySum(x -> x / total * log2(x / total), shown)) AS entropy,
    if(items_shown = 0, NULL,
        2 * arraySum((x, rank) -> x * rank, shown, arrayEnumerate(shown)) / (items_shown * total)
        - (items_shown + 1) / items_shown) AS gini
FROM (
    SELECT
        toStartOfMinute(second) AS time, arm, sum(d.lists) AS lists, sum(d.items) AS items,
        sum(d.pairs) AS pairs, sum(d.apart) AS apart, sum(d.surprise) AS surprise, sum(d.young) AS young
    FROM {db}.diversity_cube AS d FINAL
    GROUP BY time, arm
) AS l
LEFT JOIN (
    SELECT time, arm, arraySort(groupArray(impressions)) AS shown, arraySum(shown) AS total
    FROM {db}.items WHERE impressions > 0
    GROUP BY time, arm
) AS s USING (time, arm);

-- Per minute and kind (event_to_slate, event_to_learned), ms: the upper edge of the bin that holds the
-- percentile, so never better than the truth.
CREATE OR REPLACE VIEW {db}.freshness AS
SELECT
    toStartOfMinute(second) AS time, kind, sum(f.count) AS count,
    quantileExactWeighted(0.5)(upto, f.count) AS p50,
    quantileExactWeighted(0.95)(upto, f.count) AS p95,
    quantileExactWeighted(0.99)(upto, f.count) AS p99
FROM {db}.freshness_cube AS f FINAL
GROUP BY time, kind;

-- Per minute, task and lag of the model (0 the newest, 1m, 10m, frozen: the first minute's; the older ones on
-- one user in 20): each example scored before it was trained on. Clicks are judged train.evaluate_after_s after
-- their list was shown, carts and purchases train.conversion_wait_s after: the newest minutes have none yet.
-- auc: share of (positive, negative) pairs in order, those within one bin count half; log_loss: nats;
-- calibration: predicted over observed positives; normalised_entropy: log loss over that of the base rate
-- (He et al. 2014); ece: mean gap between predicted and observed rates over bins. mrr, ndcg (at 10): over
-- lists with a click, beside the task `click`.
CREATE OR REPLACE VIEW {db}.quality AS
SELECT
    time, task, lag, q.count AS count, q.positives AS positives, q.predicted AS predicted, q.loss AS loss,
    ordered / nullIf(positives * (count - positives), 0) AS auc,
    loss / nullIf(count, 0) AS log_loss,
    predicted / nullIf(positives, 0) AS calibration,
    positives / nullIf(count, 0) AS base,
    if(base IN (0, 1), NULL, log_loss / (-base * log(base) - (1 - base) * log(1 - base)))
        AS normalised_entropy,
    gap / nullIf(count, 0) AS ece,
    q.lists AS lists, reciprocal / nullIf(lists, 0) AS mrr, gain / nullIf(lists, 0) AS ndcg
FROM (
    SELECT
        time, task, lag, sum(b.count) AS count, sum(b.positives) AS positives,
        sum(b.predicted) AS predicted, sum(b.loss) AS loss, sum(abs(b.predicted - b.positives)) AS gap,
        sum(b.positives * (b.below + (b.count - b.positives) / 2)) AS ordered,
        sum(b.lists) AS lists, sum(b.reciprocal) AS reciprocal, sum(b.gain) AS gain
    FROM (
        SELECT
            *,
            sum(count - positives) OVER (PARTITION BY time, task, lag ORDER BY bin
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - (count - positives) AS below
        FROM (
            SELECT
                toStartOfMinute(second) AS time, task, lag, bin, sum(c.count) AS count,
                sum(c.positives) AS positives, sum(c.predicted) AS predicted, sum(c.loss) AS loss,
                0 AS lists, 0. AS reciprocal, 0. AS gain
            FROM {db}.quality_cube AS c FINAL
            GROUP BY time, task, lag, bin
            UNION ALL
            SELECT
                toStartOfMinute(second), 'click', lag, 0, 0, 0, 0., 0.,
                sum(r.lists), sum(r.reciprocal), sum(r.ndcg)
            FROM {db}.ranking_cube AS r FINAL
            GROUP BY 1, lag
        )
    ) AS b
    GROUP BY time, task, lag
) AS q;

-- Every arm against each other arm and against `others` together, over everything stored. `default`, the slate
-- for strangers, has a rate and no lift, and is none of the others: nobody was drawn for it.
-- Users, not impressions, are drawn: the variance of a rate r = clicks / impressions comes from the 32
-- user buckets, var = B/(B-1) sum((clicks_b - r impressions_b)^2) / impressions^2 (random groups,
-- linearised). `width` widens the standard error to an interval that holds at every look at once, at 95%:
-- the asymptotic confidence sequence of Waudby-Smith et al. (arXiv 2103.06476, theorem 2.2; Robbins'
-- normal mixture), sqrt(2 (t rho^2 + 1) / (t rho^2) log(sqrt(t rho^2 + 1) / 0.05)), rho^2 set so that it is
-- tightest near t = 10000 impressions; then stretched from normal to Student's t with B-1 degrees of
-- freedom (first Cornish-Fisher term), because B buckets know the variance only so well.
-- The lift is r / r' - 1. Its interval and that of the rate are taken on the log scale: clicks are rare and
-- visitors differ, so a rate is skewed, and a symmetric interval around a low one misses what lies above it.
-- Without a click there is no interval. Each interval holds at 95% on its own, not all pairs together.
CREATE OR REPLACE VIEW {db}.lift AS
WITH
    folded AS (
        SELECT arm, bucket, sum(impressions) AS n, sum(clicks) AS c
        FROM {db}.experiment_cube FINAL GROUP BY arm, bucket
    ),
    arms AS (SELECT DISTINCT arm FROM folded),
    pairs AS (
        SELECT a.arm AS arm, b.arm AS against FROM arms AS a CROSS JOIN arms AS b
        WHERE a.arm != b.arm AND a.arm != 'default' AND b.arm != 'default'
        UNION ALL
        SELECT arm, 'others' FROM arms
    ),
    sides AS (
        SELECT
            arm, against, bucket,
            sumIf(n, own) AS n1, sumIf(c, own) AS c1, sumIf(n, other) AS n2, sumIf(c, other) AS c2
        FROM (
            SELECT
                p.arm AS arm, p.against AS against, f.bucket AS bucket, f.n AS n, f.c AS c,
                f.arm = p.arm AS own,
                f.arm = p.against
                    OR (p.against = 'others' AND f.arm != p.arm AND 'default' NOT IN (f.arm, p.arm)) AS other
            FROM pairs AS p CROSS JOIN folded AS f
        )
        GROUP BY arm, against, bucket
    ),
    rates AS (
        SELECT
            arm, against, sum(n1) AS impressions, sum(c1) AS clicks, sum(n2) AS impressions_against,
            countIf(n1 > 0) AS buckets, countIf(n2 > 0) AS buckets_against,
            clicks / nullIf(impressions, 0) AS ctr,
            sum(c2) / nullIf(impressions_against, 0) AS ctr_against,
            arraySum((n, c) -> pow(c - ifNull(ctr, 0) * n, 2), groupArray(n1), groupArray(c1)) AS spread,
            arraySum((n, c) -> pow(c - ifNull(ctr_against, 0) * n, 2),
                groupArray(n2), groupArray(c2)) AS spread_against
        FROM sides GROUP BY arm, against
    ),
    errors AS (
        SELECT
            *,
            sqrt(buckets / nullIf(buckets - 1, 0) * spread) / nullIf(impressions, 0) AS error,
            sqrt(buckets_against / nullIf(buckets_against - 1, 0) * spread_against)
                / nullIf(impressions_against, 0) AS error_against,
            sqrt(pow(error / nullIf(ctr, 0), 2)
                + pow(error_against / nullIf(ctr_against, 0), 2)) AS log_error,
            (-2 * log(0.05) + log(1 - 2 * log(0.05))) / 10000 AS rho2,
            impressions * rho2 AS t1,
            least(impressions, impressions_against) * rho2 AS t2,
            sqrt(2 * (t1 + 1) / nullIf(t1, 0) * log(sqrt(t1 + 1) / 0.05)) AS z1,
            sqrt(2 * (t2 + 1) / nullIf(t2, 0) * log(sqrt(t2 + 1) / 0.05)) AS z2,
            z1 * (1 + (z1 * z1 + 1) / (4 * nullIf(buckets - 1, 0))) AS width,
            z2 * (1 + (z2 * z2 + 1) / (4 * nullIf(least(buckets, buckets_against) - 1, 0))) AS width_log
        FROM rates
    )
SELECT
    arm, against, impressions, clicks, buckets, ctr, error,
    ctr * exp(-width * error / nullIf(ctr, 0)) AS ctr_low,
    ctr * exp(width * error / nullIf(ctr, 0)) AS ctr_high,
    ctr / nullIf(ctr_against, 0) - 1 AS lift,
    (lift + 1) * exp(-width_log * log_error) - 1 AS lift_low,
    (lift + 1) * exp(width_log * log_error) - 1 AS lift_high
FROM errors;

-- Off-policy: at explored places, the click rate that each arm's choice would have, over everything stored,
-- whoever's slate it was (policy `~uniform` draws); what is estimated and how: `stream/rank/choices.py`.
-- ips, snips: the estimates; coverage: mean weight, 1 but for chance where the arm always has a choice;
-- effective: sum(w)^2 / sum(w^2), how many places speak. low, high: around snips, as in `lift`, with
-- `effective` for impressions and tightest near 1000 of them.
CREATE OR REPLACE VIEW {db}.choices AS
WITH
    folded AS (
        SELECT
            policy, bucket, sum(x.shown) AS s, sum(x.matched) AS m, sum(x.places) AS g,
            sum(x.weight) AS w, sum(x.squares) AS q, sum(x.clicks) AS c
        FROM {db}.choices_cube AS x FINAL GROUP BY policy, bucket
    ),
    rates AS (
        SELECT
            policy, sum(s) AS shown, sum(m) AS matched, sum(g) AS places, sum(w) AS weight, sum(c) AS clicks,
            weight * weight / nullIf(sum(q), 0) AS effective,
            clicks / nullIf(places, 0) AS ips,
            clicks / nullIf(weight, 0) AS snips,
            countIf(w > 0) AS buckets,
            arraySum((x, y) -> pow(y - ifNull(snips, 0) * x, 2), groupArray(w), groupArray(c)) AS spread
        FROM folded GROUP BY policy
    ),
    errors AS (
        SELECT
            *,
            sqrt(buckets / nullIf(buckets - 1, 0) * spread) / nullIf(weight, 0) AS error,
            effective * (-2 * log(0.05) + log(1 - 2 * log(0.05))) / 1000 AS t,
            sqrt(2 * (t + 1) / nullIf(t, 0) * log(sqrt(t + 1) / 0.05)) AS z,
            z * (1 + (z * z + 1) / (4 * nullIf(buckets - 1, 0))) AS width
        FROM rates
    )
SELECT
    policy, shown, matched, effective, weight / nullIf(places, 0) AS coverage, ips, snips, error,
    snips * exp(-width * error / nullIf(snips, 0)) AS low,
    snips * exp(width * error / nullIf(snips, 0)) AS high
FROM errors;

-- Arms side by side over everything stored; the lift is against the other arms together. choice: click rate
-- of the arm's choice at explored places of all arms, see `choices`.
CREATE OR REPLACE VIEW {db}.experiment AS
SELECT
    e.arm AS arm, e.impressions AS impressions, e.clicks AS clicks, e.carts AS carts,
    e.purchases AS purchases, e.revenue AS revenue, l.buckets AS buckets,
    l.ctr AS ctr, l.error AS error, l.ctr_low AS ctr_low, l.ctr_high AS ctr_high,
    l.lift AS lift, l.lift_low AS lift_low, l.lift_high AS lift_high,
    c.snips AS choice, c.low AS choice_low, c.high AS choice_high
FROM (
    SELECT
        arm, sum(x.impressions) AS impressions, sum(x.clicks) AS clicks, sum(x.carts) AS carts,
        sum(x.purchases) AS purchases, sum(x.revenue) AS revenue
    FROM {db}.experiment_cube AS x FINAL GROUP BY arm
) AS e
INNER JOIN (SELECT * FROM {db}.lift WHERE against = 'others') AS l ON l.arm = e.arm
LEFT JOIN {db}.choices AS c ON c.policy = e.arm;

-- One row per version and decision (snapshot, published, rejected).
CREATE OR REPLACE VIEW {db}.models AS
SELECT
    second AS time, epoch, n, decision, sum(m.lists) AS lists, sum(m.bytes) AS bytes, sum(m.rows) AS rows,
    sum(m.seconds) AS seconds, sum(m.loss_before) AS loss_before, sum(m.loss_after) AS loss_after
FROM {db}.models_cube AS m FINAL
GROUP BY second, epoch, n, decision;

-- What each role counted, per second of broker time.
CREATE OR REPLACE VIEW {db}.health AS
SELECT second AS time, role, counter, reason, sum(h.count) AS count
FROM {db}.health_cube AS h FINAL
GROUP BY second, role, counter, reason;

-- Readings (lag, state sizes, memory) of each process.
CREATE OR REPLACE VIEW {db}.gauges AS
SELECT second AS time, role, gauge, source, partition, argMax(g.value, (block, version)) AS value
FROM {db}.gauges_cube AS g FINAL
GROUP BY second, role, gauge, source, partition;

-- What only a simulated shop knows, per minute and arm: regret is the share of the best slates' clicks missed.
CREATE OR REPLACE VIEW {db}.truth AS
SELECT time, arm, impressions, expected, best, (best - expected) / nullIf(best, 0) AS regret
FROM (
    SELECT
        toStartOfMinute(second) AS time, arm, sum(t.impressions) AS impressions,
        sum(t.expected) AS expected, sum(t.best) AS best
    FROM {db}.truth_cube AS t FINAL
    GROUP BY time, arm
);

-- Alerts as published on the topic.
CREATE OR REPLACE VIEW {db}.alerts AS
SELECT time, rule, severity, message, values FROM {db}.alert_log FINAL;

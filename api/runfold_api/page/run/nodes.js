// Names, groups and statuses of nodes, for all views of a run.

/** The key of a node attempt. */
export const keyOf = (node) => `${node.node}\u0000${node.attempt}`;

/** `extract`, or `extract, attempt 2`. */
export const nodeTitle = (node) => (node.attempt > 1 ? `${node.name || node.node}, attempt ${node.attempt}` : node.name || node.node);

/** The name without its trailing number: `mProject_ID0000012` belongs to `mProject`. */
export function familyOf(node) {
  const name = node.name || node.node;
  return name.replace(/[\s_\-.:#/[(]*(?:id|no|nr)?[\s_\-.:#]*\d+[\])]*$/i, "") || name;
}

/** Groups by family, in the order of their first nodes. */
export function groupByFamily(nodes) {
  const groups = new Map();
  for (const node of nodes) {
    const name = familyOf(node);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(node);
  }
  return groups;
}

const SEVERITY = ["failed", "running", "cancelled", "pending", "skipped", "completed"];

/** The most severe status of a group of nodes. */
export const worstStatus = (nodes) => SEVERITY.find((status) => nodes.some((node) => node.status === status)) ?? "pending";

/** `12 completed, 1 failed` */
export function describeStatuses(nodes) {
  return SEVERITY.map((status) => [status, nodes.filter((node) => node.status === status).length])
    .filter(([, count]) => count).reverse().map(([status, count]) => `${count} ${status}`).join(", ");
}

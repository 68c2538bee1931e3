// What the views of one run have in common about its nodes.

/** One attempt at one node; also what the address of a node holds. */
export const keyOf = (node) => `${node.node}\u0000${node.attempt}`;

/** `extract`, or `extract, attempt 2`. */
export function nodeTitle(node) {
  return node.attempt > 1 ? `${node.name || node.node}, attempt ${node.attempt}` : node.name || node.node;
}

/** The name without the number that tells siblings apart: `mProject_ID0000012` is of `mProject`. */
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

/** The status that a group of nodes shows: the first of these that one of them has. */
export function worstStatus(nodes) {
  return SEVERITY.find((status) => nodes.some((node) => node.status === status)) ?? "pending";
}

/** `12 completed, 1 failed` */
export function describeStatuses(nodes) {
  return SEVERITY.map((status) => [status, nodes.filter((node) => node.status === status).length])
    .filter(([, count]) => count).reverse().map(([status, count]) => `${count} ${status}`).join(", ");
}

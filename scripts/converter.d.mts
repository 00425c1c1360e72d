export function converterHash(): string;
